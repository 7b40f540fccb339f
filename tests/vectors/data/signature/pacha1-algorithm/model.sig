{
  "content_hash": "182b6c9f0e1217aa75e5dc64009a0cbf9bf7daad150055c662243e529c9f333c",
  "signature": "9bb168a4727585e44211eeecc3634b674eb3f6b834925ccf4db95003658ed69a8a09370ff2acb2387dec76d14f979f4666533335a1a16839263d3d82d193d30b",
  "signer_key": "d118c9fcb69fe0019e4bbf66f2c9d7d5847f2779a1bec6136837a1390b77447b",
  "signer_id": "alice@example.com",
  "timestamp": 1795000000,
  "algorithm": "rsa"
}