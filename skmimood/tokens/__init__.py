"""All that speaks tokens: images to tokens and back, what scores tokens, what restores them. One method, one file.

`tokenizer.py`, `detector.py` and `inpainter.py` are MIM-OOD; `autoregressive.py`, `critic.py`, `likelihood.py` and
`tokenizer_residual.py` its rivals. They share `base.py`, and what passes between them is in `container.py`. Methods
without tokens belong into `skmimood.detectors`, networks into `skmimood.networks`.
"""
