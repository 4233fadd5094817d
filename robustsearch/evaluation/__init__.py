"""Honest measurement of one network: which attacks, through which gradients, over how many fresh draws.

protocols   what is measured, as data
robust      accuracy under each attack, and the worst of them for each image
intervals   the 95% interval of an accuracy
"""
