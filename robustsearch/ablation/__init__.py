"""Ablation: which rows are run, and what their results say. Pure functions, without torch, Ray or Optuna.

designs      rows from a base and its changes: listed, one-in, leave-one-out, factorial
paths        from one recipe to another, change by change, in any order
gaining      the same in the order that gains most, which only its own rows tell
point        the designs that ablate one recipe, by name
statistics   effects over seeds and images, their intervals and tests
factorial    main effects and interactions of a factorial design
power        how many seeds a wanted resolution takes
"""
