{
  "content_hash": "182b6c9f0e1217aa75e5dc64009a0cbf9bf7daad150055c662243e529c9f333c",
  "signature": "58c0c83f7f56947e6d48659046f88c4c27ff26364dbc7351aadd01fcdf591701d366e3d4c602c7ab41217359889ac909a104984dbd0ea4d883e3e291e8d81e0c",
  "signer_key": "bffb3402fe9948202f8c4a5a3e52585f5a629d1d74ebad240e64405c2d2f9eac",
  "signer_id": "mallory@example.com",
  "timestamp": 1795000000,
  "algorithm": "ed25519-blake3"
}