"""Chat templates: turn the messages of a conversation into the prompt that a model was trained on.

`formats` lists the named formats, `detection` finds the format of a model, `engine` renders prompts, `control` finds
control tokens in the text of users and tools, and `worker` runs untrusted templates in a separate process.
"""
