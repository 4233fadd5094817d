"""Honest measurement of one network: which attacks, through which gradients, over how many fresh draws.

protocols   what is measured, as data
methods     how each attack of a protocol is called
robust      accuracy under each attack, and the worst of them for each image
intervals   the 95% interval of an accuracy
masking     whether an accuracy is robustness or a hidden gradient, for any classifier
boundary    how far the decision boundary is, accuracy against epsilon, slices

Behind `masking`: its checks, what they attack with and what they read of gradients (masking_checks, masking_attacks,
masking_gradients); the classifier examined, its generators, its smooth stand-ins (subject, replay, surrogates).
"""
