"""Checks the caches of other tools against the digests that they keep: Hugging Face, Ollama, OCI image layouts.

    from batuta_cli.pacha.caches.checker import check_cache
    from batuta_cli.pacha.caches.layouts import locate_caches

    for cache in locate_caches("hf"):
        report = check_cache(cache)

A cache names each blob by a digest of its content, so damage shows without a network and without a signature. It
does not show who published a model: a cache that an attacker wrote is consistent too, and git's SHA-1 shows damage,
not tampering. `verify` answers that.

One module a layout, with the functions of `LayoutModule`, and one row of `LAYOUTS` in `layouts.py`.
"""
