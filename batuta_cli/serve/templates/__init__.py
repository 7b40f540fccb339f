"""Chat templates: from the messages of a conversation to the text that a model was trained on.

`formats` has the formats by name, `detection` says which one a model has, `engine` renders, `control` looks for control
tokens in what users and tools wrote, and `worker` keeps templates that are not ours from harming this process.
"""
