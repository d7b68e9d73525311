"""How a network is trained: the one loop, the base of the estimators that train, augmentation and painted anomalies.

Which network and which loss is the matter of each method; where it runs, of `skmimood.runtime`.
"""
