"""What the man pages say beyond the commands themselves."""

INTERRUPTED = 130

DESCRIPTION = """\
batuta pacha signs, verifies, encrypts and stores model files: GGUF, safetensors, or directories of any size. batuta \
serve renders prompts, counts tokens, chooses backends within a privacy tier and a daily budget, and serves the \
clients of OpenAI, Anthropic and Ollama over HTTP. Only the commands that talk to a backend use the network. Without a \
terminal nothing prompts.

Results go to stdout; progress, notes and errors go to stderr. With --json exactly one JSON document is printed on \
stdout, also on failure: ok, command, result, and error with its kind, message, hint and exit_code; pacha run prints \
it only when it starts no program. The name - is stdin or stdout. An existing output is replaced only with --force. \
An output file appears complete or not at all.

Passwords and keys are read from files, environment variables, stdin or a prompt, never from arguments. Logs and \
errors never contain the content of messages."""

EXIT_STATUS = {
    0: "Done; the check passed.",
    1: "The operation failed: an input is missing or unreadable, an I/O error, an error of a server, or a damaged "
    "trust store, object store or ledger.",
    2: "Wrong usage or an invalid input: a malformed signature, header, key, template, configuration or conversation, "
    "an existing output, or a private key that other users can read.",
    3: "Verification failed: the content changed, there is no signature or it is wrong, the password is wrong or the "
    "ciphertext damaged. `serve template lint` found a fault, or `serve template diff` a difference.",
    4: "The signer is unknown, revoked, expired, not yet valid, or not the one asked for.",
    5: "The budget refuses, or the price is unknown.",
    6: "The privacy tier refuses.",
    7: "No backend is available: none answers, or the queue is full.",
    8: "The messages do not fit the context window.",
    126: "pacha run: the program exists and cannot be executed.",
    127: "pacha run: the program does not exist.",
    INTERRUPTED: "Interrupted.",
}

FILES = (
    ("~/.config/batuta/config.toml", "The configuration; see batuta config."),
    ("~/.local/share/batuta/keys/", "Your own key pairs: IDENTITY.key with mode 0600, and IDENTITY.pub."),
    ("~/.local/share/batuta/trust/trust.toml", "Trusted and revoked public keys."),
    ("~/.local/share/batuta/gateway/keys.toml", "Client keys of the gateway, as SHA-256; see batuta serve keys."),
    ("~/.local/share/batuta/store/", "The content-addressed store of models."),
    ("~/.local/state/batuta/ledger.sqlite3", "The budget ledger: amounts spent, reserved and forgiven, by day."),
    ("~/.local/state/batuta/audit/", "The audit log: connections allowed and refused, one file per process."),
    ("PATH.sig", "The signature of PATH: a Sigstore bundle, one JSON object."),
    ("PATH.enc", "PATH encrypted under a password."),
)

ENVIRONMENT = (
    (
        "XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_STATE_HOME",
        "Directories to use instead of ~/.config, ~/.local/share and ~/.local/state.",
    ),
    ("BATUTA_TABLE_KEY", "Overrides a key of the configuration, for example BATUTA_PACHA_DEFAULT_KEY."),
    ("MODEL_KEY", "The password of encrypt, decrypt and run, unless an option names another."),
    (
        "OPENAI_API_KEY, GROQ_API_KEY, OLLAMA_HOST, ...",
        "API keys and addresses of backends, under the names that each service documents.",
    ),
    ("BATUTA_DEBUG", "1 shows the traceback of an error."),
    ("NO_COLOR, FORCE_COLOR", "Colours never, or always; otherwise on a terminal."),
    ("TERM, COLUMNS", "TERM=dumb means no colours and no progress bar; COLUMNS is the width of help and tables."),
    (
        "TMPDIR",
        "Directory of unnamed temporary files for data that is not released before it is checked; default /var/tmp.",
    ),
)

SEE_ALSO = ("b3sum", "openssl")
