"""Attacks: one loop, start x step x projection x objective, each a plain function passed in (docs/methods.md).

    objectives.py       what is maximised for each image: cross_entropy, margin, dlr, targeted_dlr
    gradient.py         input_gradient: its mean gradient over draws of a random model; crafting: eval mode
    starts.py           where an attack begins: at_image, uniform_in_ball
    steps.py            where it goes next: steepest_ascent in l_inf (sign) or l_2 (normalised gradient)
    projections.py      where it must stay: clip to [0, 1], onto_ball
    loop.py             run: the loop; Best: per image the best iterate seen
    named.py            attacks of a given epsilon: noise, fgsm, pgd
    carlini_wagner.py   attacks of minimal l_2 norm: cw (fixed c), cw_search (binary search over c)
    apgd.py             Auto-PGD, whose steps find their own size: apgd, apgd_targeted
    square.py           square: random search, without a gradient and with a loop of its own
    mixing.py           Mixer: which attack a training batch meets

A new attack passes another start, step, projection or objective to `loop.run`. A step sees the objective's
values beside the gradient and may keep state of its own, as Adam does in `carlini_wagner.py`. A transfer attack is
any of these on another model: its result is scored on the one that is attacked.

Conventions, here and in every file:

* images `[N, C, H, W]`, float32 or float64 in [0, 1]; every length (epsilon, step) is in these pixel units;
  labels `[N]`, int64. No input is modified. A result is detached, in [0, 1], of the images' dtype and device.
* A model is any callable from images to logits `[N, classes]`, and may be random. Pass the model that the
  gradient should see, the surrogate where there is one. Wrap the call in `crafting(module)` while it trains.
* All randomness of an attack comes from the generator that is passed in. Nothing global changes: neither
  random state, nor `param.grad`, nor train and eval flags. `no_grad` and `inference_mode` make no difference.
"""
