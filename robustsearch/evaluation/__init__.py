"""Honest measurement of one network: which attacks, through which gradients, over how many fresh draws.

protocols   what is measured, as data
methods     how each attack of a protocol is called
robust      accuracy under each attack, and the worst of them for each image
intervals   the 95% interval of an accuracy
masking     whether an accuracy is robustness or a hidden gradient, for any classifier: the way in
            (masking_checks, masking_attacks, masking_gradients: its checks, what they attack with, what they read of
            gradients; subject, replay, surrogates: the classifier examined, its generators, its smooth stand-ins)
"""
