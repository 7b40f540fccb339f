# fish completion for batuta
#
# Generated from the commands by `make docs`. It is static: batuta is not run at TAB.

function __batuta_at --description 'Whether the next word is a command of this group'
    set -l named
    for word in (commandline -opc)[2..]
        string match -q -- '-*' $word; or set -a named $word
    end
    test "$named" = "$argv"
end

# __batuta_in COMMAND [NUMBER [VALUED OPTION...]]: whether the next word belongs to this command; with a NUMBER, whether
# it is the argument of that number, or with 1+ any argument.
function __batuta_in --description 'Whether the next word belongs to this command'
    set -l command (string split ' ' -- $argv[1])
    set -l wanted $argv[2]
    set -l valued $argv[3..]
    set -l number 1
    set -l options yes
    set -l value no
    for word in (commandline -opc)[2..]
        if test $value = yes
            set value no
            continue
        end
        if test $options = yes
            if test "$word" = --
                set options no
                continue
            else if string match -q -- '--*' $word
                contains -- $word $valued; and set value yes
                continue
            else if string match -qr -- '^-.' $word
                set -l letters (string split '' -- (string sub -s 2 -- $word))
                for i in (seq (count $letters))
                    if contains -- -$letters[$i] $valued
                        test $i -eq (count $letters); and set value yes
                        break
                    end
                end
                continue
            end
        end
        if set -q command[1]
            test "$word" = $command[1]; or return 1
            set -e command[1]
        else
            set number (math $number + 1)
        end
    end
    set -q command[1]; and return 1
    test -z "$wanted" -o "$wanted" = 1+ -o "$wanted" = $number
end

complete -c batuta -f

# batuta
complete -c batuta -n '__batuta_at' -a pacha -d 'Make model files trustworthy: sign, verify, encrypt, hash, store.'
complete -c batuta -n '__batuta_at' -a serve -d 'Make model requests correct, private and within budget.'
complete -c batuta -n '__batuta_at' -a config -d 'Show and change the configuration: path, show, get, set, unset, init.'
complete -c batuta -n '__batuta_at' -s V -l version -d 'Print the version and exit.'
complete -c batuta -n '__batuta_at' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_at' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_at' -s h -l help -d 'Show this message and exit.'

# batuta pacha
complete -c batuta -n '__batuta_at pacha' -a keygen -d 'Make a new Ed25519 key pair and trust its public key.'
complete -c batuta -n '__batuta_at pacha' -a sign -d 'Sign models; the signature is written beside each as PATH.sig.'
complete -c batuta -n '__batuta_at pacha' -a verify -d 'Verify models: exit 0 only when the content is intact and the signer is trusted.'
complete -c batuta -n '__batuta_at pacha' -a run -d 'Verify a model in sealed memory, and start a program that reads it there.'
complete -c batuta -n '__batuta_at pacha' -a hash -d 'Print content addresses (BLAKE3): blake3:<hex>  PATH.'
complete -c batuta -n '__batuta_at pacha' -a encrypt -d 'Encrypt a file under a password, as PATH.enc.'
complete -c batuta -n '__batuta_at pacha' -a decrypt -d 'Decrypt a file: the original, or nothing.'
complete -c batuta -n '__batuta_at pacha' -a inspect -d 'Show what a .sig or .enc file, or another tool\'s OpenSSF bundle, says about itself.'
complete -c batuta -n '__batuta_at pacha' -a check -d 'Compare the files of model caches with the digests that the caches keep: damage is exit 3. No network.'
complete -c batuta -n '__batuta_at pacha' -a keys -d 'Manage your own keys.'
complete -c batuta -n '__batuta_at pacha' -a trust -d 'Manage the keys whose signatures are accepted, and revoked keys.'
complete -c batuta -n '__batuta_at pacha' -a store -d 'Keep models once, read-only, under the address of their content.'
complete -c batuta -n '__batuta_at pacha' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_at pacha' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_at pacha' -s h -l help -d 'Show this message and exit.'

# batuta pacha keygen
complete -c batuta -n '__batuta_in \'pacha keygen\'' -l identity -x -d 'Who signs, for example an email address.'
complete -c batuta -n '__batuta_in \'pacha keygen\'' -s o -l output -r -F -d 'Write the pair here instead of your keys.'
complete -c batuta -n '__batuta_in \'pacha keygen\'' -l passphrase-env -x -a '(set -nx)' -d 'The variable that holds the key\'s passphrase.'
complete -c batuta -n '__batuta_in \'pacha keygen\'' -s f -l force -d 'Replace what exists.'
complete -c batuta -n '__batuta_in \'pacha keygen\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha keygen\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha keygen\'' -s h -l help -d 'Show this message and exit.'

# batuta pacha sign
complete -c batuta -n '__batuta_in \'pacha sign\'' -l identity -x -d 'Which of your keys; with --key, the name to sign as.'
complete -c batuta -n '__batuta_in \'pacha sign\'' -l key -r -F -d 'A private key from elsewhere; - is stdin.'
complete -c batuta -n '__batuta_in \'pacha sign\'' -l passphrase-env -x -a '(set -nx)' -d 'The variable that holds the key\'s passphrase.'
complete -c batuta -n '__batuta_in \'pacha sign\'' -s o -l output -r -F -d 'Where to write it; - is stdout.'
complete -c batuta -n '__batuta_in \'pacha sign\'' -l expires -x -d 'The signature is valid for DAYS days.'
complete -c batuta -n '__batuta_in \'pacha sign\'' -l ignore -x -d 'Leave out these paths, relative to the model\'s root. * stays within a directory, ** does not.'
complete -c batuta -n '__batuta_in \'pacha sign\'' -l follow-symlinks -d 'Read symbolic links to files inside a model directory.'
complete -c batuta -n '__batuta_in \'pacha sign\'' -l format -x -a 'bundle pacha1' -d 'A Sigstore bundle, or the Rust crate\'s format.'
complete -c batuta -n '__batuta_in \'pacha sign\'' -l inside -d 'Write the signature of a directory into it, as DIR/model.sig.'
complete -c batuta -n '__batuta_in \'pacha sign\'' -l oms-key -r -F -d 'Sign with this ECDSA key for model_signing and other OpenSSF tools, as PATH.oms.sig.'
complete -c batuta -n '__batuta_in \'pacha sign\'' -l cached -d 'Do not read files that are unchanged, by inode and times, since they were read with this option.'
complete -c batuta -n '__batuta_in \'pacha sign\'' -s f -l force -d 'Replace an existing signature.'
complete -c batuta -n '__batuta_in \'pacha sign\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha sign\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha sign\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'pacha sign\' 1+ --identity --key --passphrase-env -o --output --expires --ignore --format --oms-key' -F

# batuta pacha verify
complete -c batuta -n '__batuta_in \'pacha verify\'' -l signature -r -F -d 'The signature, if it is not PATH.sig; - is stdin.'
complete -c batuta -n '__batuta_in \'pacha verify\'' -l key -r -F -d 'Accept this public key instead of the trust store\'s: Ed25519 or ECDSA, a file or TYPE:BASE64. Of several, any is accepted.'
complete -c batuta -n '__batuta_in \'pacha verify\'' -l identity -x -d 'The signer that is required. Of several, any is accepted.'
complete -c batuta -n '__batuta_in \'pacha verify\'' -l digest -x -d 'The content must have this address or digest.'
complete -c batuta -n '__batuta_in \'pacha verify\'' -l name -x -d 'The name it must have been signed under.'
complete -c batuta -n '__batuta_in \'pacha verify\'' -l require -x -d 'How many distinct trusted keys must have signed.'
complete -c batuta -n '__batuta_in \'pacha verify\'' -l trust -r -F -d 'Accept the keys of this file instead of the trust store\'s: one of trust export, or allowed_signers.'
complete -c batuta -n '__batuta_in \'pacha verify\'' -l ca -r -F -d 'Accept certificates that this authority (PEM) issued to --identity, instead of the trust store\'s.'
complete -c batuta -n '__batuta_in \'pacha verify\'' -l trusted-root -r -F -d 'Accept keyless Sigstore signatures under this trusted_root.json.'
complete -c batuta -n '__batuta_in \'pacha verify\'' -l issuer -x -d 'The OpenID Connect issuer of --identity in a keyless signature.'
complete -c batuta -n '__batuta_in \'pacha verify\'' -l at -x -d 'Judge certificates and expiry at this time, not now (UTC).'
complete -c batuta -n '__batuta_in \'pacha verify\'' -l allow-unsigned -x -d 'Accept unsigned files of these names, and list them.'
complete -c batuta -n '__batuta_in \'pacha verify\'' -l allow-pacha1 -d 'Accept the Rust crate\'s signatures, which bind the content only.'
complete -c batuta -n '__batuta_in \'pacha verify\'' -l cached -d 'Do not read files that are unchanged, by inode and times, since they were read with this option.'
complete -c batuta -n '__batuta_in \'pacha verify\'' -l report -x -d 'Print annotations of a GitHub Actions job, and add to its summary.'
complete -c batuta -n '__batuta_in \'pacha verify\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha verify\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha verify\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'pacha verify\' 1+ --signature --key --identity --digest --name --require --trust --ca --trusted-root --issuer --at --allow-unsigned --report' -F

# batuta pacha run
complete -c batuta -n '__batuta_in \'pacha run\'' -l signature -r -F -d 'The signature, if it is not PATH.sig; - is stdin.'
complete -c batuta -n '__batuta_in \'pacha run\'' -l key -r -F -d 'Accept this public key instead of the trust store\'s: Ed25519 or ECDSA, a file or TYPE:BASE64. Of several, any is accepted.'
complete -c batuta -n '__batuta_in \'pacha run\'' -l identity -x -d 'The signer that is required. Of several, any is accepted.'
complete -c batuta -n '__batuta_in \'pacha run\'' -l digest -x -d 'The content must have this address or digest.'
complete -c batuta -n '__batuta_in \'pacha run\'' -l name -x -d 'The name it must have been signed under.'
complete -c batuta -n '__batuta_in \'pacha run\'' -l require -x -d 'How many distinct trusted keys must have signed.'
complete -c batuta -n '__batuta_in \'pacha run\'' -l trust -r -F -d 'Accept the keys of this file instead of the trust store\'s: one of trust export, or allowed_signers.'
complete -c batuta -n '__batuta_in \'pacha run\'' -l ca -r -F -d 'Accept certificates that this authority (PEM) issued to --identity, instead of the trust store\'s.'
complete -c batuta -n '__batuta_in \'pacha run\'' -l trusted-root -r -F -d 'Accept keyless Sigstore signatures under this trusted_root.json.'
complete -c batuta -n '__batuta_in \'pacha run\'' -l issuer -x -d 'The OpenID Connect issuer of --identity in a keyless signature.'
complete -c batuta -n '__batuta_in \'pacha run\'' -l at -x -d 'Judge certificates and expiry at this time, not now (UTC).'
complete -c batuta -n '__batuta_in \'pacha run\'' -l allow-unsigned -x -d 'Accept unsigned files of these names, and list them.'
complete -c batuta -n '__batuta_in \'pacha run\'' -l allow-pacha1 -d 'Accept the Rust crate\'s signatures, which bind the content only.'
complete -c batuta -n '__batuta_in \'pacha run\'' -l password-env -x -a '(set -nx)' -d 'The variable that holds the password.'
complete -c batuta -n '__batuta_in \'pacha run\'' -l password-file -r -F -d 'The file that holds it; one trailing newline (LF or CRLF) is dropped.'
complete -c batuta -n '__batuta_in \'pacha run\'' -l allow-kdf-memory -x -d 'Largest memory that a file may request to derive its key.'
complete -c batuta -n '__batuta_in \'pacha run\'' -l max-memory -x -d 'Largest memory for the model, such as 8G. By default what is available here, at most what the control group has left.'
complete -c batuta -n '__batuta_in \'pacha run\'' -l allow-swap -d 'Start also when the memory cannot be locked and the machine has swap.'
complete -c batuta -n '__batuta_in \'pacha run\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha run\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha run\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'pacha run\' 1 --signature --key --identity --digest --name --require --trust --ca --trusted-root --issuer --at --allow-unsigned --password-env --password-file --allow-kdf-memory --max-memory' -F
complete -c batuta -n '__batuta_in \'pacha run\' 2 --signature --key --identity --digest --name --require --trust --ca --trusted-root --issuer --at --allow-unsigned --password-env --password-file --allow-kdf-memory --max-memory' -a '(__fish_complete_command)'
complete -c batuta -n '__batuta_in \'pacha run\' 1+ --signature --key --identity --digest --name --require --trust --ca --trusted-root --issuer --at --allow-unsigned --password-env --password-file --allow-kdf-memory --max-memory' -F

# batuta pacha hash
complete -c batuta -n '__batuta_in \'pacha hash\'' -s c -l check -r -F -d 'Check the addresses listed in FILE.'
complete -c batuta -n '__batuta_in \'pacha hash\'' -l ignore-missing -d 'With --check: skip listed files that do not exist.'
complete -c batuta -n '__batuta_in \'pacha hash\'' -l algorithm -x -a 'blake3 sha256' -d 'sha256 prints the lines of sha256sum, for files only.'
complete -c batuta -n '__batuta_in \'pacha hash\'' -l ignore -x -d 'Leave out these paths, relative to the model\'s root. * stays within a directory, ** does not.'
complete -c batuta -n '__batuta_in \'pacha hash\'' -l follow-symlinks -d 'Read symbolic links to files inside a model directory.'
complete -c batuta -n '__batuta_in \'pacha hash\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha hash\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha hash\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'pacha hash\' 1+ -c --check --algorithm --ignore' -F

# batuta pacha encrypt
complete -c batuta -n '__batuta_in \'pacha encrypt\'' -l password-env -x -a '(set -nx)' -d 'The variable that holds the password.'
complete -c batuta -n '__batuta_in \'pacha encrypt\'' -l password-file -r -F -d 'The file that holds it; one trailing newline (LF or CRLF) is dropped.'
complete -c batuta -n '__batuta_in \'pacha encrypt\'' -s o -l output -r -F -d 'Where to write; - is stdout.'
complete -c batuta -n '__batuta_in \'pacha encrypt\'' -l format -x -a '1 2' -d '1 is read by the Rust crate; 2 is for pipes, random access and any size.'
complete -c batuta -n '__batuta_in \'pacha encrypt\'' -s f -l force -d 'Replace an existing output.'
complete -c batuta -n '__batuta_in \'pacha encrypt\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha encrypt\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha encrypt\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'pacha encrypt\' 1 --password-env --password-file -o --output --format' -F

# batuta pacha decrypt
complete -c batuta -n '__batuta_in \'pacha decrypt\'' -l password-env -x -a '(set -nx)' -d 'The variable that holds the password.'
complete -c batuta -n '__batuta_in \'pacha decrypt\'' -l password-file -r -F -d 'The file that holds it; one trailing newline (LF or CRLF) is dropped.'
complete -c batuta -n '__batuta_in \'pacha decrypt\'' -s o -l output -r -F -d 'Where to write; - is stdout.'
complete -c batuta -n '__batuta_in \'pacha decrypt\'' -l allow-kdf-memory -x -d 'Largest memory that a file may request to derive its key.'
complete -c batuta -n '__batuta_in \'pacha decrypt\'' -s f -l force -d 'Replace an existing output.'
complete -c batuta -n '__batuta_in \'pacha decrypt\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha decrypt\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha decrypt\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'pacha decrypt\' 1 --password-env --password-file -o --output --allow-kdf-memory' -F

# batuta pacha inspect
complete -c batuta -n '__batuta_in \'pacha inspect\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha inspect\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha inspect\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'pacha inspect\' 1' -F

# batuta pacha check
complete -c batuta -n '__batuta_in \'pacha check\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha check\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha check\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'pacha check\' 1+' -F

# batuta pacha keys
complete -c batuta -n '__batuta_at pacha keys' -a list -d 'List your own key pairs, and whether signatures by them are accepted here.'
complete -c batuta -n '__batuta_at pacha keys' -a export -d 'Write the public key of one of your key pairs, for others to trust.'
complete -c batuta -n '__batuta_at pacha keys' -a import -d 'Import a private Ed25519 key: PKCS#8 PEM, OpenSSH, or the Rust crate\'s PEM.'
complete -c batuta -n '__batuta_at pacha keys' -a rotate -d 'Replace a key by a new one under the same name, which the old one endorses.'
complete -c batuta -n '__batuta_at pacha keys' -a rename -d 'Give a key another identity, here and in the trust store.'
complete -c batuta -n '__batuta_at pacha keys' -a remove -d 'Delete one of your key pairs permanently.'
complete -c batuta -n '__batuta_at pacha keys' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_at pacha keys' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_at pacha keys' -s h -l help -d 'Show this message and exit.'

# batuta pacha keys list
complete -c batuta -n '__batuta_in \'pacha keys list\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha keys list\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha keys list\'' -s h -l help -d 'Show this message and exit.'

# batuta pacha keys export
complete -c batuta -n '__batuta_in \'pacha keys export\'' -l format -x -a 'pem openssh inline' -d 'How to write it.'
complete -c batuta -n '__batuta_in \'pacha keys export\'' -s o -l output -r -F -d 'Where to write it; - is stdout.'
complete -c batuta -n '__batuta_in \'pacha keys export\'' -s f -l force -d 'Replace what exists.'
complete -c batuta -n '__batuta_in \'pacha keys export\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha keys export\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha keys export\'' -s h -l help -d 'Show this message and exit.'

# batuta pacha keys import
complete -c batuta -n '__batuta_in \'pacha keys import\'' -l identity -x -d 'Who signs, for example an email address.'
complete -c batuta -n '__batuta_in \'pacha keys import\'' -l passphrase-env -x -a '(set -nx)' -d 'The variable that holds the key\'s passphrase.'
complete -c batuta -n '__batuta_in \'pacha keys import\'' -s f -l force -d 'Replace what exists.'
complete -c batuta -n '__batuta_in \'pacha keys import\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha keys import\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha keys import\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'pacha keys import\' 1 --identity --passphrase-env' -F

# batuta pacha keys rotate
complete -c batuta -n '__batuta_in \'pacha keys rotate\'' -l passphrase-env -x -a '(set -nx)' -d 'The variable that holds the key\'s passphrase.'
complete -c batuta -n '__batuta_in \'pacha keys rotate\'' -l new-passphrase-env -x -a '(set -nx)' -d 'The variable that holds the new key\'s passphrase, if it is another one.'
complete -c batuta -n '__batuta_in \'pacha keys rotate\'' -l endorsement -r -F -d 'Where to write the endorsement; beside the kept key by default.'
complete -c batuta -n '__batuta_in \'pacha keys rotate\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha keys rotate\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha keys rotate\'' -s h -l help -d 'Show this message and exit.'

# batuta pacha keys rename
complete -c batuta -n '__batuta_in \'pacha keys rename\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha keys rename\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha keys rename\'' -s h -l help -d 'Show this message and exit.'

# batuta pacha keys remove
complete -c batuta -n '__batuta_in \'pacha keys remove\'' -s y -l yes -d 'Delete it without a question.'
complete -c batuta -n '__batuta_in \'pacha keys remove\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha keys remove\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha keys remove\'' -s h -l help -d 'Show this message and exit.'

# batuta pacha trust
complete -c batuta -n '__batuta_at pacha trust' -a add -d 'Trust a public key under a name: Ed25519 or ECDSA, in PEM, as an OpenSSH line, or the Rust crate\'s PEM.'
complete -c batuta -n '__batuta_at pacha trust' -a list -d 'List trusted and revoked keys, those of /etc/batuta/trust.toml included.'
complete -c batuta -n '__batuta_at pacha trust' -a remove -d 'Stop trusting a key. A revocation of it stays.'
complete -c batuta -n '__batuta_at pacha trust' -a revoke -d 'Revoke a key permanently: no signature by it is accepted, regardless of its date.'
complete -c batuta -n '__batuta_at pacha trust' -a retire -d 'Accept a key\'s signatures only if they are dated before DATE.'
complete -c batuta -n '__batuta_at pacha trust' -a export -d 'Write your trusted and revoked keys as one file, for `trust import` and `verify --trust`.'
complete -c batuta -n '__batuta_at pacha trust' -a import -d 'Add the keys and revocations of a file, after showing what changes.'
complete -c batuta -n '__batuta_at pacha trust' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_at pacha trust' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_at pacha trust' -s h -l help -d 'Show this message and exit.'

# batuta pacha trust add
complete -c batuta -n '__batuta_in \'pacha trust add\'' -l endorsed-by -r -F -d 'Trust the new key that a key of NAME endorses in this file (see keys rotate).'
complete -c batuta -n '__batuta_in \'pacha trust add\'' -l valid-from -x -d 'Accept only signatures dated then or later (UTC).'
complete -c batuta -n '__batuta_in \'pacha trust add\'' -l valid-until -x -d 'Accept only signatures dated before then (UTC).'
complete -c batuta -n '__batuta_in \'pacha trust add\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha trust add\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha trust add\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'pacha trust add\' 2 --endorsed-by --valid-from --valid-until' -F

# batuta pacha trust list
complete -c batuta -n '__batuta_in \'pacha trust list\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha trust list\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha trust list\'' -s h -l help -d 'Show this message and exit.'

# batuta pacha trust remove
complete -c batuta -n '__batuta_in \'pacha trust remove\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha trust remove\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha trust remove\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'pacha trust remove\' 1' -F

# batuta pacha trust revoke
complete -c batuta -n '__batuta_in \'pacha trust revoke\'' -l reason -x -d 'The reason, shown when a signature of this key is refused.'
complete -c batuta -n '__batuta_in \'pacha trust revoke\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha trust revoke\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha trust revoke\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'pacha trust revoke\' 1 --reason' -F

# batuta pacha trust retire
complete -c batuta -n '__batuta_in \'pacha trust retire\'' -l from -x -d 'Signatures dated then or later are refused (UTC).'
complete -c batuta -n '__batuta_in \'pacha trust retire\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha trust retire\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha trust retire\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'pacha trust retire\' 1 --from' -F

# batuta pacha trust export
complete -c batuta -n '__batuta_in \'pacha trust export\'' -s o -l output -r -F -d 'Where to write it; - is stdout.'
complete -c batuta -n '__batuta_in \'pacha trust export\'' -s f -l force -d 'Replace an existing file.'
complete -c batuta -n '__batuta_in \'pacha trust export\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha trust export\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha trust export\'' -s h -l help -d 'Show this message and exit.'

# batuta pacha trust import
complete -c batuta -n '__batuta_in \'pacha trust import\'' -s y -l yes -d 'Make the changes without a question.'
complete -c batuta -n '__batuta_in \'pacha trust import\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha trust import\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha trust import\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'pacha trust import\' 1' -F

# batuta pacha store
complete -c batuta -n '__batuta_at pacha store' -a add -d 'Add files and directories, each with its PATH.sig, and print their addresses.'
complete -c batuta -n '__batuta_at pacha store' -a path -d 'Print the path of an object.'
complete -c batuta -n '__batuta_at pacha store' -a get -d 'Copy a file or directory out of the store, with its signature as DEST.sig; every byte is hashed on its way.'
complete -c batuta -n '__batuta_at pacha store' -a list -d 'List the objects: names, addresses, sizes in bytes, when they were added (a linked file: last changed).'
complete -c batuta -n '__batuta_at pacha store' -a verify -d 'Hash objects again. A damaged one is moved aside and no longer served: exit 3.'
complete -c batuta -n '__batuta_at pacha store' -a remove -d 'Remove a name (the object stays until `gc`), or an object without a name.'
complete -c batuta -n '__batuta_at pacha store' -a gc -d 'Delete objects that no name needs, their signatures, and leftovers of interrupted `store add`s.'
complete -c batuta -n '__batuta_at pacha store' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_at pacha store' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_at pacha store' -s h -l help -d 'Show this message and exit.'

# batuta pacha store add
complete -c batuta -n '__batuta_in \'pacha store add\'' -l name -x -d 'What to call it; TAG is latest by default.'
complete -c batuta -n '__batuta_in \'pacha store add\'' -l link -d 'Make the file itself the object, by a hard link: no second copy, but the file turns read-only, and editing it in place damages the object.'
complete -c batuta -n '__batuta_in \'pacha store add\'' -l follow-symlinks -d 'Read symbolic links to files inside a model directory.'
complete -c batuta -n '__batuta_in \'pacha store add\'' -s f -l force -d 'Move the name from another object; replace another signature.'
complete -c batuta -n '__batuta_in \'pacha store add\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha store add\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha store add\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'pacha store add\' 1+ --name' -F

# batuta pacha store path
complete -c batuta -n '__batuta_in \'pacha store path\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha store path\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha store path\'' -s h -l help -d 'Show this message and exit.'

# batuta pacha store get
complete -c batuta -n '__batuta_in \'pacha store get\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha store get\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha store get\'' -s h -l help -d 'Show this message and exit.'

# batuta pacha store list
complete -c batuta -n '__batuta_in \'pacha store list\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha store list\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha store list\'' -s h -l help -d 'Show this message and exit.'

# batuta pacha store verify
complete -c batuta -n '__batuta_in \'pacha store verify\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha store verify\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha store verify\'' -s h -l help -d 'Show this message and exit.'

# batuta pacha store remove
complete -c batuta -n '__batuta_in \'pacha store remove\'' -s f -l force -d 'Remove an object together with its names.'
complete -c batuta -n '__batuta_in \'pacha store remove\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha store remove\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha store remove\'' -s h -l help -d 'Show this message and exit.'

# batuta pacha store gc
complete -c batuta -n '__batuta_in \'pacha store gc\'' -s n -l dry-run -d 'Only print what would be deleted.'
complete -c batuta -n '__batuta_in \'pacha store gc\'' -l damaged -d 'Delete also the damaged objects set aside.'
complete -c batuta -n '__batuta_in \'pacha store gc\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'pacha store gc\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'pacha store gc\'' -s h -l help -d 'Show this message and exit.'

# batuta serve
complete -c batuta -n '__batuta_at serve' -a template -d 'Render messages as the prompt a model was trained on, byte for byte.'
complete -c batuta -n '__batuta_at serve' -a context -d 'Count the tokens of a conversation, as the model\'s template renders it, and check whether they fit.'
complete -c batuta -n '__batuta_at serve' -a backends -d 'List the backends: tier, address, state; with --probe also queue depth and models.'
complete -c batuta -n '__batuta_at serve' -a route -d 'Print the name of the backend that a request would go to. The request is not sent.'
complete -c batuta -n '__batuta_at serve' -a chat -d 'Send one request to a model and print the response.'
complete -c batuta -n '__batuta_at serve' -a gateway -d 'Start an HTTP server for clients of OpenAI, Anthropic and Ollama, within the privacy tier and the budget.'
complete -c batuta -n '__batuta_at serve' -a env -d 'Print the variables and options that point a client at the gateway, as commands of a shell.'
complete -c batuta -n '__batuta_at serve' -a launch -d 'Start a client that uses the gateway; its exit status is that of this command.'
complete -c batuta -n '__batuta_at serve' -a audit -d 'Verify the log of the privacy gate\'s decisions.'
complete -c batuta -n '__batuta_at serve' -a budget -d 'Limit and show the daily spending.'
complete -c batuta -n '__batuta_at serve' -a keys -d 'Create, list and revoke the client keys of the gateway.'
complete -c batuta -n '__batuta_at serve' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_at serve' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_at serve' -s h -l help -d 'Show this message and exit.'

# batuta serve template
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -a lint -d 'Look for faults of a chat template by rendering conversations with it.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -a diff -d 'Show where the prompts of two chat templates first differ, for each conversation.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l model -x -d 'The model\'s name, its GGUF file or its folder.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l format -x -d 'The name of a format; --list prints them.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l template -r -F -d 'A Jinja template.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l bos -x -d 'The value of bos_token in --template.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l eos -x -d 'The value of eos_token in --template.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -s m -l messages -r -F -d 'The conversation as JSON: a list of {"role", "content"}, or an object with "messages"; - is stdin.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l system -x -d 'The system message; - reads stdin.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l user -x -d 'The user\'s message; - reads stdin.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l no-generation-prompt -d 'Do not append the assistant header (add_generation_prompt=False).'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l continue -d 'End inside the assistant\'s last message, so that the model continues it.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l var -x -d 'A variable of the chat template, such as enable_thinking=false; may be repeated.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l system-fallback -x -a 'error merge drop' -d 'The treatment of a system message that the format does not support: merge puts it into the first user message, drop omits it.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l on-injection -x -a 'warn error escape strip' -d 'The action for control tokens in the text of users and tools.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l date -x -d 'The date for templates that write the current date (default: today).'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l count -d 'Print the number of tokens of the prompt instead.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l strict -d 'Refuse a format that was found with low confidence (exit 2).'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l list -d 'List the named formats.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l detect -d 'Print what is known of --model: format, context window, tokenizer and price, with sources.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve template\' 1 --model --format --template --bos --eos -m --messages --system --user --var --system-fallback --on-injection --date' -s h -l help -d 'Show this message and exit.'

# batuta serve template lint
complete -c batuta -n '__batuta_in \'serve template lint\'' -l ignore -x -d 'Do not look for this fault; may be repeated.'
complete -c batuta -n '__batuta_in \'serve template lint\'' -l tokenizer -r -F -d 'Compare prompts by the tokens of this GGUF file, tokenizer.json or folder. Default: the model\'s own.'
complete -c batuta -n '__batuta_in \'serve template lint\'' -l sarif -d 'Print a SARIF 2.1.0 log for code hosts.'
complete -c batuta -n '__batuta_in \'serve template lint\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve template lint\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve template lint\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'serve template lint\' 1 --ignore --tokenizer' -F

# batuta serve template diff
complete -c batuta -n '__batuta_in \'serve template diff\'' -s m -l messages -r -F -d 'One conversation as JSON, a JSON list of conversations, or JSON Lines with one a line; - is stdin. Default: nine conversations of the usual kinds.'
complete -c batuta -n '__batuta_in \'serve template diff\'' -l tokenizer -r -F -d 'Compare prompts by the tokens of this GGUF file, tokenizer.json or folder. Default: the model\'s own.'
complete -c batuta -n '__batuta_in \'serve template diff\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve template diff\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve template diff\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'serve template diff\' 1 -m --messages --tokenizer' -F
complete -c batuta -n '__batuta_in \'serve template diff\' 2 -m --messages --tokenizer' -F

# batuta serve context
complete -c batuta -n '__batuta_in \'serve context\'' -l model -x -d 'The model\'s name, or its GGUF file.'
complete -c batuta -n '__batuta_in \'serve context\'' -s m -l messages -r -F -d 'The conversation as JSON: a list of {"role", "content"}, or an object with "messages"; - is stdin.'
complete -c batuta -n '__batuta_in \'serve context\'' -l system -x -d 'The system message; - reads stdin.'
complete -c batuta -n '__batuta_in \'serve context\'' -l user -x -d 'The user\'s message; - reads stdin.'
complete -c batuta -n '__batuta_in \'serve context\'' -l strategy -x -a 'sliding-window middle-out error' -d 'Shorten the conversation to fit and print it: sliding-window drops the oldest turns, middle-out drops the oldest turns after the first, error drops nothing.'
complete -c batuta -n '__batuta_in \'serve context\'' -l window -x -d 'The context window, for prompt and output together.'
complete -c batuta -n '__batuta_in \'serve context\'' -l reserve -x -d 'The part of the window reserved for the output.'
complete -c batuta -n '__batuta_in \'serve context\'' -l tokenizer -r -F -d 'Count with this GGUF file, tokenizer.json or model folder.'
complete -c batuta -n '__batuta_in \'serve context\'' -l var -x -d 'A variable of the chat template, such as enable_thinking=false; may be repeated.'
complete -c batuta -n '__batuta_in \'serve context\'' -l system-fallback -x -a 'error merge drop' -d 'The treatment of a system message that the format does not support: merge puts it into the first user message, drop omits it.'
complete -c batuta -n '__batuta_in \'serve context\'' -l backend -x -d 'Let this running llama.cpp or vLLM server count; its window is used where it is smaller.'
complete -c batuta -n '__batuta_in \'serve context\'' -l privacy -x -a 'sovereign private standard' -d 'The privacy tier of the request to --backend. Default: the config\'s.'
complete -c batuta -n '__batuta_in \'serve context\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve context\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve context\'' -s h -l help -d 'Show this message and exit.'

# batuta serve backends
complete -c batuta -n '__batuta_in \'serve backends\'' -l privacy -x -a 'sovereign private standard' -d 'The privacy tier to judge by; by default the one in the configuration.'
complete -c batuta -n '__batuta_in \'serve backends\'' -l probe -d 'Probe every backend that the tier admits.'
complete -c batuta -n '__batuta_in \'serve backends\'' -l all -d 'List every known kind, configured or not.'
complete -c batuta -n '__batuta_in \'serve backends\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve backends\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve backends\'' -s h -l help -d 'Show this message and exit.'

# batuta serve route
complete -c batuta -n '__batuta_in \'serve route\'' -l privacy -x -a 'sovereign private standard' -d 'The privacy tier; by default the one in the configuration.'
complete -c batuta -n '__batuta_in \'serve route\'' -l latency -x -a 'realtime interactive batch' -d 'How soon a response is needed.'
complete -c batuta -n '__batuta_in \'serve route\'' -l throughput -x -a 'low medium high' -d 'How many requests run at once.'
complete -c batuta -n '__batuta_in \'serve route\'' -l cost -x -a 'frugal balanced premium' -d 'Prefer cheap or hosted backends.'
complete -c batuta -n '__batuta_in \'serve route\'' -l model -x -d 'The model of the request.'
complete -c batuta -n '__batuta_in \'serve route\'' -l backend -x -d 'Check only this backend.'
complete -c batuta -n '__batuta_in \'serve route\'' -l queue-depth -x -d 'Assume this queue depth of the local backend; probe nothing.'
complete -c batuta -n '__batuta_in \'serve route\'' -l no-spillover -d 'Use only the local backend.'
complete -c batuta -n '__batuta_in \'serve route\'' -l configured -d 'Consider only configured backends.'
complete -c batuta -n '__batuta_in \'serve route\'' -l explain -d 'Show the result of every gate for every backend.'
complete -c batuta -n '__batuta_in \'serve route\'' -l input-tokens -x -d 'The prompt\'s length in tokens.'
complete -c batuta -n '__batuta_in \'serve route\'' -l max-output-tokens -x -d 'The output limit in tokens.'
complete -c batuta -n '__batuta_in \'serve route\'' -s m -l messages -r -F -d 'The conversation as JSON: a list of {"role", "content"}, or an object with "messages"; - is stdin.'
complete -c batuta -n '__batuta_in \'serve route\'' -l system -x -d 'The system message; - reads stdin.'
complete -c batuta -n '__batuta_in \'serve route\'' -l user -x -d 'The user\'s message; - reads stdin.'
complete -c batuta -n '__batuta_in \'serve route\'' -l ledger -x -d 'The ledger: sqlite, sqlite:////absolute/path, sqlite:///path/from/the/current/directory, redis://host:6379/0, rediss://host:6379/0 or memory:.'
complete -c batuta -n '__batuta_in \'serve route\'' -l set -x -d 'Override a key of the configuration, such as timeouts.first_token=300.'
complete -c batuta -n '__batuta_in \'serve route\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve route\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve route\'' -s h -l help -d 'Show this message and exit.'

# batuta serve chat
complete -c batuta -n '__batuta_in \'serve chat\'' -s M -l model -x -d 'The model to ask.'
complete -c batuta -n '__batuta_in \'serve chat\'' -l system -x -d 'The system message; - reads stdin.'
complete -c batuta -n '__batuta_in \'serve chat\'' -s m -l messages -r -F -d 'The conversation as JSON: a list of {"role", "content"}, or an object with "messages"; - is stdin.'
complete -c batuta -n '__batuta_in \'serve chat\'' -l max-tokens -x -d 'Limit the response to N tokens.'
complete -c batuta -n '__batuta_in \'serve chat\'' -l temperature -x -d 'Sampling temperature, 0 to 2.'
complete -c batuta -n '__batuta_in \'serve chat\'' -l seed -x -d 'Sampling seed, for repeatable responses.'
complete -c batuta -n '__batuta_in \'serve chat\'' -l no-stream -l stream -d 'Stream the response (default, except with --json).'
complete -c batuta -n '__batuta_in \'serve chat\'' -l privacy -x -a 'standard private sovereign' -d 'The privacy tier; by default the one in the configuration.'
complete -c batuta -n '__batuta_in \'serve chat\'' -l backend -x -d 'Use only this backend.'
complete -c batuta -n '__batuta_in \'serve chat\'' -l ledger -x -d 'The ledger: sqlite, sqlite:////absolute/path, sqlite:///path/from/the/current/directory, redis://host:6379/0, rediss://host:6379/0 or memory:.'
complete -c batuta -n '__batuta_in \'serve chat\'' -l set -x -d 'Override a key of the configuration, such as timeouts.first_token=300.'
complete -c batuta -n '__batuta_in \'serve chat\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve chat\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve chat\'' -s h -l help -d 'Show this message and exit.'

# batuta serve gateway
complete -c batuta -n '__batuta_in \'serve gateway\'' -l host -x -d 'Address to listen on [127.0.0.1].'
complete -c batuta -n '__batuta_in \'serve gateway\'' -l port -x -d 'Port to listen on; 0 takes a free one [8484].'
complete -c batuta -n '__batuta_in \'serve gateway\'' -l workers -x -d 'Number of processes that share the port [1].'
complete -c batuta -n '__batuta_in \'serve gateway\'' -l ledger -x -d 'The ledger: sqlite, sqlite:////absolute/path, sqlite:///path/from/the/current/directory, redis://host:6379/0, rediss://host:6379/0 or memory:.'
complete -c batuta -n '__batuta_in \'serve gateway\'' -l set -x -d 'Override a key of the configuration, such as timeouts.first_token=300.'
complete -c batuta -n '__batuta_in \'serve gateway\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve gateway\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve gateway\'' -s h -l help -d 'Show this message and exit.'

# batuta serve env
complete -c batuta -n '__batuta_in \'serve env\'' -l model -x -d 'The model; by default the only one in the configuration.'
complete -c batuta -n '__batuta_in \'serve env\'' -l url -x -d 'The gateway\'s address; by default that of the configuration.'
complete -c batuta -n '__batuta_in \'serve env\'' -l key-env -x -a '(set -nx)' -d 'The variable with the client key [BATUTA_CLIENT_KEY, if set].'
complete -c batuta -n '__batuta_in \'serve env\'' -l shell -x -a 'sh bash zsh fish powershell' -d 'The shell; by default that of $SHELL.'
complete -c batuta -n '__batuta_in \'serve env\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve env\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve env\'' -s h -l help -d 'Show this message and exit.'

# batuta serve launch
complete -c batuta -n '__batuta_in \'serve launch\'' -l model -x -d 'The model; by default the only one in the configuration.'
complete -c batuta -n '__batuta_in \'serve launch\'' -l url -x -d 'The gateway\'s address; by default that of the configuration.'
complete -c batuta -n '__batuta_in \'serve launch\'' -l key-env -x -a '(set -nx)' -d 'The variable with the client key [BATUTA_CLIENT_KEY, if set].'
complete -c batuta -n '__batuta_in \'serve launch\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve launch\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve launch\'' -s h -l help -d 'Show this message and exit.'

# batuta serve audit
complete -c batuta -n '__batuta_at serve audit' -a verify -d 'Check that no decision was changed, removed, added or moved.'
complete -c batuta -n '__batuta_at serve audit' -a head -d 'Print the heads to keep in another place: one of each file, and one of the whole log.'
complete -c batuta -n '__batuta_at serve audit' -a seal -d 'Sign the heads of the audit log with an own key.'
complete -c batuta -n '__batuta_at serve audit' -a prove -d 'List every connection of a tier, and say which left this machine.'
complete -c batuta -n '__batuta_at serve audit' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_at serve audit' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_at serve audit' -s h -l help -d 'Show this message and exit.'

# batuta serve audit verify
complete -c batuta -n '__batuta_in \'serve audit verify\'' -l head -r -F -d 'A hash that `audit head` printed, or a FILE with its output (- is stdin). Must be in the log.'
complete -c batuta -n '__batuta_in \'serve audit verify\'' -l sealed -r -F -d 'A seal of `audit seal`, by a trusted key. Its heads must be in the log.'
complete -c batuta -n '__batuta_in \'serve audit verify\'' -l key -r -F -d 'Accept seals of this public key only.'
complete -c batuta -n '__batuta_in \'serve audit verify\'' -l identity -x -d 'Accept seals of this trusted signer only.'
complete -c batuta -n '__batuta_in \'serve audit verify\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve audit verify\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve audit verify\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'serve audit verify\' 1+ --head --sealed --key --identity' -F

# batuta serve audit head
complete -c batuta -n '__batuta_in \'serve audit head\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve audit head\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve audit head\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'serve audit head\' 1+' -F

# batuta serve audit seal
complete -c batuta -n '__batuta_in \'serve audit seal\'' -l identity -l name -x -d 'The own key to sign with.'
complete -c batuta -n '__batuta_in \'serve audit seal\'' -l key -r -F -d 'A private key file, env:VAR, or - for stdin.'
complete -c batuta -n '__batuta_in \'serve audit seal\'' -l passphrase-env -x -a '(set -nx)' -d 'The environment variable with the key\'s passphrase.'
complete -c batuta -n '__batuta_in \'serve audit seal\'' -s o -l output -r -F -d 'Where to write the seal; - is stdout.'
complete -c batuta -n '__batuta_in \'serve audit seal\'' -s f -l force -d 'Replace an existing file.'
complete -c batuta -n '__batuta_in \'serve audit seal\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve audit seal\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve audit seal\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'serve audit seal\' 1+ --identity --name --key --passphrase-env -o --output' -F

# batuta serve audit prove
complete -c batuta -n '__batuta_in \'serve audit prove\'' -l tier -x -d 'sovereign, private or standard.'
complete -c batuta -n '__batuta_in \'serve audit prove\'' -l since -x -d 'List the connections from then on (UTC).'
complete -c batuta -n '__batuta_in \'serve audit prove\'' -l sealed -r -F -d 'Seals whose heads must be in the log.'
complete -c batuta -n '__batuta_in \'serve audit prove\'' -l key -r -F -d 'Accept seals of this public key only.'
complete -c batuta -n '__batuta_in \'serve audit prove\'' -l identity -x -d 'Accept seals of this trusted signer only.'
complete -c batuta -n '__batuta_in \'serve audit prove\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve audit prove\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve audit prove\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'serve audit prove\' 1+ --tier --since --sealed --key --identity' -F

# batuta serve budget
complete -c batuta -n '__batuta_at serve budget' -a status -d 'Show the spent, reserved and remaining amounts of the day, and when the next day begins.'
complete -c batuta -n '__batuta_at serve budget' -a check -d 'Check whether a request fits the budget: exit 0, or 5 when the budget refuses or the price is unknown.'
complete -c batuta -n '__batuta_at serve budget' -a record -d 'Record the cost of a request, as an amount or as tokens. It may exceed the budget; then the next check refuses.'
complete -c batuta -n '__batuta_at serve budget' -a history -d 'List the spending of each day by model and backend, or by client key, the newest day first.'
complete -c batuta -n '__batuta_at serve budget' -a set -d 'Write the limits to the configuration file: all of them, or none when one is invalid.'
complete -c batuta -n '__batuta_at serve budget' -a reset -d 'Forgive today\'s spending, so that the whole budget is available again.'
complete -c batuta -n '__batuta_at serve budget' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_at serve budget' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_at serve budget' -s h -l help -d 'Show this message and exit.'

# batuta serve budget status
complete -c batuta -n '__batuta_in \'serve budget status\'' -l key -x -d 'Show the sums of a client key.'
complete -c batuta -n '__batuta_in \'serve budget status\'' -l ledger -x -d 'The ledger: sqlite, sqlite:////absolute/path, sqlite:///path/from/the/current/directory, redis://host:6379/0, rediss://host:6379/0 or memory:.'
complete -c batuta -n '__batuta_in \'serve budget status\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve budget status\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve budget status\'' -s h -l help -d 'Show this message and exit.'

# batuta serve budget check
complete -c batuta -n '__batuta_in \'serve budget check\'' -l estimate -x -d 'The highest cost of the request, such as 0.42.'
complete -c batuta -n '__batuta_in \'serve budget check\'' -l model -x -d 'The provider\'s name of the model.'
complete -c batuta -n '__batuta_in \'serve budget check\'' -l backend -x -d 'The backend: a configured one, or a kind such as Groq.'
complete -c batuta -n '__batuta_in \'serve budget check\'' -l input-tokens -x -d 'Tokens of the prompt.'
complete -c batuta -n '__batuta_in \'serve budget check\'' -l max-output-tokens -x -d 'Limit of the output tokens.'
complete -c batuta -n '__batuta_in \'serve budget check\'' -l allow-unpriced -d 'Count a model of unknown price as free, with a warning.'
complete -c batuta -n '__batuta_in \'serve budget check\'' -l ledger -x -d 'The ledger: sqlite, sqlite:////absolute/path, sqlite:///path/from/the/current/directory, redis://host:6379/0, rediss://host:6379/0 or memory:.'
complete -c batuta -n '__batuta_in \'serve budget check\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve budget check\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve budget check\'' -s h -l help -d 'Show this message and exit.'

# batuta serve budget record
complete -c batuta -n '__batuta_in \'serve budget record\'' -l cost -x -d 'The cost, such as 0.42.'
complete -c batuta -n '__batuta_in \'serve budget record\'' -l model -x -d 'The provider\'s name of the model.'
complete -c batuta -n '__batuta_in \'serve budget record\'' -l backend -x -d 'The backend: a configured one, or a kind such as Groq.'
complete -c batuta -n '__batuta_in \'serve budget record\'' -l input-tokens -x -d 'Tokens of the prompt.'
complete -c batuta -n '__batuta_in \'serve budget record\'' -l output-tokens -x -d 'Tokens of the response.'
complete -c batuta -n '__batuta_in \'serve budget record\'' -l allow-unpriced -d 'Count a model of unknown price as free, with a warning.'
complete -c batuta -n '__batuta_in \'serve budget record\'' -l ledger -x -d 'The ledger: sqlite, sqlite:////absolute/path, sqlite:///path/from/the/current/directory, redis://host:6379/0, rediss://host:6379/0 or memory:.'
complete -c batuta -n '__batuta_in \'serve budget record\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve budget record\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve budget record\'' -s h -l help -d 'Show this message and exit.'

# batuta serve budget history
complete -c batuta -n '__batuta_in \'serve budget history\'' -l days -x -d 'Number of days, today included.'
complete -c batuta -n '__batuta_in \'serve budget history\'' -l by -x -a 'model key' -d 'model: a line for each model and backend. key: a line for each client key.'
complete -c batuta -n '__batuta_in \'serve budget history\'' -l csv -d 'Print CSV with a line of headings, RFC 4180.'
complete -c batuta -n '__batuta_in \'serve budget history\'' -l ledger -x -d 'The ledger: sqlite, sqlite:////absolute/path, sqlite:///path/from/the/current/directory, redis://host:6379/0, rediss://host:6379/0 or memory:.'
complete -c batuta -n '__batuta_in \'serve budget history\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve budget history\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve budget history\'' -s h -l help -d 'Show this message and exit.'

# batuta serve budget set
complete -c batuta -n '__batuta_in \'serve budget set\'' -l daily-budget -x -d 'The limit of all requests of a day together.'
complete -c batuta -n '__batuta_in \'serve budget set\'' -l max-request-cost -x -d 'The limit of one request.'
complete -c batuta -n '__batuta_in \'serve budget set\'' -l warning-threshold -x -d 'The part of the daily budget, from 0 to 1, at which one warning is sent.'
complete -c batuta -n '__batuta_in \'serve budget set\'' -l timezone -x -d 'The time zone whose midnight begins a day, such as Europe/Berlin.'
complete -c batuta -n '__batuta_in \'serve budget set\'' -l ledger -x -d 'The ledger: sqlite, sqlite:////absolute/path, sqlite:///path/from/the/current/directory, redis://host:6379/0, rediss://host:6379/0 or memory:.'
complete -c batuta -n '__batuta_in \'serve budget set\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve budget set\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve budget set\'' -s h -l help -d 'Show this message and exit.'

# batuta serve budget reset
complete -c batuta -n '__batuta_in \'serve budget reset\'' -s y -l yes -d 'Do not ask.'
complete -c batuta -n '__batuta_in \'serve budget reset\'' -l ledger -x -d 'The ledger: sqlite, sqlite:////absolute/path, sqlite:///path/from/the/current/directory, redis://host:6379/0, rediss://host:6379/0 or memory:.'
complete -c batuta -n '__batuta_in \'serve budget reset\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve budget reset\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve budget reset\'' -s h -l help -d 'Show this message and exit.'

# batuta serve keys
complete -c batuta -n '__batuta_at serve keys' -a create -d 'Create a client key and print it once; only its SHA-256 is stored.'
complete -c batuta -n '__batuta_at serve keys' -a list -d 'List the client keys with their limits and today\'s spending, including revoked and expired keys.'
complete -c batuta -n '__batuta_at serve keys' -a revoke -d 'Revoke a client key; a running gateway refuses it from the next request on.'
complete -c batuta -n '__batuta_at serve keys' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_at serve keys' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_at serve keys' -s h -l help -d 'Show this message and exit.'

# batuta serve keys create
complete -c batuta -n '__batuta_in \'serve keys create\'' -l admin -d 'Also allow /metrics from other machines.'
complete -c batuta -n '__batuta_in \'serve keys create\'' -l daily-budget -x -d 'What its requests of a day may cost together.'
complete -c batuta -n '__batuta_in \'serve keys create\'' -l privacy -x -d 'The loosest tier of its requests: sovereign, private, standard.'
complete -c batuta -n '__batuta_in \'serve keys create\'' -l models -x -d 'Models that it may use, such as \'qwen*\'; may be repeated.'
complete -c batuta -n '__batuta_in \'serve keys create\'' -l requests-per-minute -x -d 'Requests that it may send in a minute.'
complete -c batuta -n '__batuta_in \'serve keys create\'' -l concurrent -x -d 'Requests that it may have at a time.'
complete -c batuta -n '__batuta_in \'serve keys create\'' -l expires -x -d 'Its lifetime, such as 12h, 90d or 4w.'
complete -c batuta -n '__batuta_in \'serve keys create\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve keys create\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve keys create\'' -s h -l help -d 'Show this message and exit.'

# batuta serve keys list
complete -c batuta -n '__batuta_in \'serve keys list\'' -l ledger -x -d 'The ledger: sqlite, sqlite:////absolute/path, sqlite:///path/from/the/current/directory, redis://host:6379/0, rediss://host:6379/0 or memory:.'
complete -c batuta -n '__batuta_in \'serve keys list\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve keys list\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve keys list\'' -s h -l help -d 'Show this message and exit.'

# batuta serve keys revoke
complete -c batuta -n '__batuta_in \'serve keys revoke\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'serve keys revoke\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'serve keys revoke\'' -s h -l help -d 'Show this message and exit.'

# batuta config
complete -c batuta -n '__batuta_at config' -a path -d 'Print the path of the configuration file. --json also shows whether it exists.'
complete -c batuta -n '__batuta_at config' -a show -d 'Print the effective configuration as TOML: defaults, then the file, then BATUTA_... environment variables.'
complete -c batuta -n '__batuta_at config' -a get -d 'Print one effective value without quotes, a list as JSON. An unknown key is exit 2.'
complete -c batuta -n '__batuta_at config' -a set -d 'Write one value to the configuration file. Its comments and order stay.'
complete -c batuta -n '__batuta_at config' -a unset -d 'Remove one key from the configuration file, so that its default applies again, or a whole backend or model.'
complete -c batuta -n '__batuta_at config' -a init -d 'Write a configuration file that documents every key in a comment, with its default.'
complete -c batuta -n '__batuta_at config' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_at config' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_at config' -s h -l help -d 'Show this message and exit.'

# batuta config path
complete -c batuta -n '__batuta_in \'config path\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'config path\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'config path\'' -s h -l help -d 'Show this message and exit.'

# batuta config show
complete -c batuta -n '__batuta_in \'config show\'' -l origin -d 'Show the origin of each value.'
complete -c batuta -n '__batuta_in \'config show\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'config show\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'config show\'' -s h -l help -d 'Show this message and exit.'

# batuta config get
complete -c batuta -n '__batuta_in \'config get\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'config get\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'config get\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'config get\' 1' -a 'pacha.allow_pacha1 pacha.default_key budget.daily_budget_usd budget.warning_threshold budget.max_request_cost_usd budget.timezone budget.ledger budget.reservation_wait budget.allow_unbounded_tools budget.unknown_fields budget.durability privacy.tier privacy.local_networks privacy.private_networks router.spillover_threshold router.max_queue_depth router.local_backend router.spillover_backends router.spillover_enabled timeouts.connect timeouts.first_token timeouts.idle timeouts.total failover.max_retries failover.prompted failover.cooldown failover.max_cooldown failover.max_retry_after audit.rotate_bytes audit.rotate_hours audit.keep_bytes audit.keep_days network.proxy redis.username redis.password_env redis.ca_file redis.timeout gateway.host gateway.port gateway.workers gateway.origins gateway.media_hosts gateway.max_body_bytes gateway.max_bodies_bytes gateway.max_connections gateway.client_seconds gateway.key_queue gateway.key_queue_wait gateway.drain_seconds'

# batuta config set
complete -c batuta -n '__batuta_in \'config set\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'config set\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'config set\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'config set\' 1' -a 'pacha.allow_pacha1 pacha.default_key budget.daily_budget_usd budget.warning_threshold budget.max_request_cost_usd budget.timezone budget.ledger budget.reservation_wait budget.allow_unbounded_tools budget.unknown_fields budget.durability privacy.tier privacy.local_networks privacy.private_networks router.spillover_threshold router.max_queue_depth router.local_backend router.spillover_backends router.spillover_enabled timeouts.connect timeouts.first_token timeouts.idle timeouts.total failover.max_retries failover.prompted failover.cooldown failover.max_cooldown failover.max_retry_after audit.rotate_bytes audit.rotate_hours audit.keep_bytes audit.keep_days network.proxy redis.username redis.password_env redis.ca_file redis.timeout gateway.host gateway.port gateway.workers gateway.origins gateway.media_hosts gateway.max_body_bytes gateway.max_bodies_bytes gateway.max_connections gateway.client_seconds gateway.key_queue gateway.key_queue_wait gateway.drain_seconds'

# batuta config unset
complete -c batuta -n '__batuta_in \'config unset\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'config unset\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'config unset\'' -s h -l help -d 'Show this message and exit.'
complete -c batuta -n '__batuta_in \'config unset\' 1' -a 'pacha.allow_pacha1 pacha.default_key budget.daily_budget_usd budget.warning_threshold budget.max_request_cost_usd budget.timezone budget.ledger budget.reservation_wait budget.allow_unbounded_tools budget.unknown_fields budget.durability privacy.tier privacy.local_networks privacy.private_networks router.spillover_threshold router.max_queue_depth router.local_backend router.spillover_backends router.spillover_enabled timeouts.connect timeouts.first_token timeouts.idle timeouts.total failover.max_retries failover.prompted failover.cooldown failover.max_cooldown failover.max_retry_after audit.rotate_bytes audit.rotate_hours audit.keep_bytes audit.keep_days network.proxy redis.username redis.password_env redis.ca_file redis.timeout gateway.host gateway.port gateway.workers gateway.origins gateway.media_hosts gateway.max_body_bytes gateway.max_bodies_bytes gateway.max_connections gateway.client_seconds gateway.key_queue gateway.key_queue_wait gateway.drain_seconds'

# batuta config init
complete -c batuta -n '__batuta_in \'config init\'' -s f -l force -d 'Replace an existing file.'
complete -c batuta -n '__batuta_in \'config init\'' -l json -d 'Print one JSON document: {ok, command, result, error}.'
complete -c batuta -n '__batuta_in \'config init\'' -s q -l quiet -d 'Print errors only.'
complete -c batuta -n '__batuta_in \'config init\'' -s h -l help -d 'Show this message and exit.'
