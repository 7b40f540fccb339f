"""What the man pages say beyond the commands themselves."""

INTERRUPTED = 130

DESCRIPTION = """\
batuta makes running language models safe and affordable. batuta pacha signs, verifies, encrypts and stores model \
files: GGUF, safetensors, or whole directories of any size. batuta serve makes model requests correct, private and \
within budget: the exact prompt, exact token counts, which backend may take a request, a daily budget, and answers \
that survive their backend, as commands and as a gateway for the clients of OpenAI and Anthropic. Commands work \
without a network unless they are there to talk to a backend, and without a question wherever their options answer it.

Results go to stdout; progress, notes and errors to stderr. With --json exactly one JSON document is printed on \
stdout, after a failure too: ok, command, result, and error with its kind, message, hint and exit_code. The name - is \
stdin or stdout. An existing output is replaced only with --force, and a file appears whole or not at all.

No password and no key is ever an argument: they come from files, environment variables, stdin or a question on the \
terminal. No message's content is ever in a log or an error."""

EXIT_STATUS = {
    0: "Done; the check passed.",
    1: "It could not be done: a missing or unreadable input, an I/O error, a server's error, or a damaged file of "
    "batuta's own, such as the trust store or the ledger.",
    2: "Wrong usage, or an input that is not what it should be: a malformed signature, header, key, template or "
    "conversation, an existing output, a private key that others can read.",
    3: "Verification failed: the content changed, there is no signature or it is wrong, the password is wrong or the "
    "ciphertext damaged.",
    4: "The signer is unknown, revoked, expired, not yet valid, or not who was asked for.",
    5: "The budget refuses, or the price is unknown.",
    6: "The privacy tier refuses.",
    7: "There is no backend: none answers, or the queue is full.",
    8: "The messages do not fit the context window.",
    INTERRUPTED: "Interrupted.",
}

FILES = (
    ("~/.config/batuta/config.toml", "The configuration; see batuta config."),
    ("~/.local/share/batuta/keys/", "Your own key pairs: IDENTITY.key with mode 0600, and IDENTITY.pub."),
    ("~/.local/share/batuta/trust/trust.toml", "Whose signatures count here, and which keys are revoked."),
    ("~/.local/share/batuta/store/", "The content-addressed store of models."),
    ("~/.local/state/batuta/ledger.sqlite3", "What was spent, reserved and forgiven, by day."),
    ("~/.local/state/batuta/audit/", "What the privacy gate allowed and refused, one file a process."),
    ("PATH.sig", "The signature of PATH: a Sigstore bundle, one JSON object."),
    ("PATH.enc", "PATH encrypted under a password."),
)

ENVIRONMENT = (
    (
        "XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_STATE_HOME",
        "Where the files above are, in place of ~/.config, ~/.local/share and ~/.local/state.",
    ),
    ("BATUTA_TABLE_KEY", "Overrides a key of the configuration, for example BATUTA_PACHA_DEFAULT_KEY."),
    ("MODEL_KEY", "The password to encrypt and decrypt with, when no option names another."),
    (
        "OPENAI_API_KEY, GROQ_API_KEY, OLLAMA_HOST, ...",
        "Keys and addresses of backends, under the names that each service's own tools use.",
    ),
    ("BATUTA_DEBUG", "1 shows the traceback of an error."),
    ("NO_COLOR, FORCE_COLOR", "Colours never, or always; otherwise on a terminal."),
    ("TERM, COLUMNS", "TERM=dumb means no colours and no progress bar; COLUMNS is the width of help and tables."),
    ("TMPDIR", "Where data waits, unnamed, that may not be shown before it is checked; else /var/tmp."),
)

SEE_ALSO = ("b3sum", "openssl")
