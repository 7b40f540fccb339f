"""OpenSSF Model Signing (OMS) bundles of other tools: read, verified, and written for them.

Sources: https://github.com/ossf/model-signing-spec, https://github.com/sigstore/model-transparency. What is covered,
and what is refused, is listed in docs/oms.md.
"""
