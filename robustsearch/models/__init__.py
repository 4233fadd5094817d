"""The networks: one WideResNet, the layers that defend it, and the form in which it is deployed.

    stochastic   the one source of randomness, the base of every layer that draws, surrogate and mean network
    lwta         stochastic local winner-takes-all activation
    fused        its passes, and ReLU's with their batch norm, as one pass in C; paired, for two units, as few in torch
    ibp          Indian buffet process prior over LWTA blocks
    pni          convolution and linear layer with parametric noise injection
    smoothing    Gaussian noise on the input
    wrn          WideResNet, with activation and convolution passed in
    build        recipe -> network
    foreign      a classifier of somebody else, by MODULE:FACTORY, with its weights
    deploy       network -> what is timed and shipped: pruned, folded, all draws averaged
    inspect      what the stochastic layers of a network do, as plain arrays

A new stochastic layer derives from `Stochastic`, draws from its `Noise` only, says in `scope` what one draw
covers and in `random` whether evaluation draws at all, and follows `mode`.
"""
