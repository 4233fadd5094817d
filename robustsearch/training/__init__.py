"""Training one network by its recipe: the loss with its named terms, and the loop over epochs."""
