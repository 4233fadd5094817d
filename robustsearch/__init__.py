"""robustsearch: search defence recipes for robust image classifiers, honestly.

space -> recipe -> trial (data, model, attacks, training, evaluation, latency) -> results -> analysis
"""

__version__ = "0.1.0"
