"""Evaluation: what each part of a model's embedding contains.

The command ``clever-hub evaluate`` writes evaluation.json. Its schema, version 1:

    schema_version   1
    model            name, kind, architecture, dims (length of each part), input_size,
                     weights_sha256, identity, …
    figures          protocol → condition → part → metric → {"mean", "std", "values"}
    baselines        name ("random", "pixels", or of --beside) → {"model", "figures"}, as above
    protocols        protocol → {"command", "profile", "seeds", "settings", "data", "created",
                     "seconds", "environment"}: how the figures of this protocol were made

``docs/evaluation-schema.md`` lists the conditions and metrics of every protocol.

For example ``figures["knn"]["upright"]["full"]["top1"]["mean"]`` is an accuracy in per cent.
``part`` is ``full``, ``invariant`` or ``equivariant``; raw pixels and models without an equivariant
part have ``full`` alone. ``std`` is the sample standard deviation over the seeds, null for one
seed; ``values`` has the figure of each seed. Accuracies (``top1``, ``hit1`` …) are in per cent,
everything else is not scaled. ``data`` has, for ``train`` and ``validation``, the name, the number
of photos used and of all photos, the classes, ``fingerprint`` (SHA-256 of the whole content) and
``subset`` (SHA-256 of the fingerprint and the rows used).

Another run into the same folder keeps the protocols that it does not repeat, if the weights are
the same. Within a schema version keys may be added; none is removed or changes its meaning.
"""
