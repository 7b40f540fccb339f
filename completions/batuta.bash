# bash completion for batuta
#
# Generated from the commands by `make docs`. It is static: batuta is not run at TAB. It needs bash 4.4 and no library.

# The values of a command: its subcommands, its options, and what the value of option or argument number $2 may be.
# Fails when $2 takes no value.
_batuta_at() {
    subcommands='' options='' value=''
    case $1 in
        'batuta')
            subcommands='pacha serve config'
            options='-V --version --json -q --quiet -h --help'
            ;;
        'batuta pacha')
            subcommands='keygen sign verify run hash encrypt decrypt inspect check keys trust store'
            options='--json -q --quiet -h --help'
            ;;
        'batuta pacha keygen')
            options='--identity -o --output --passphrase-env -f --force --json -q --quiet -h --help'
            case ${2-} in
                --identity) value='' && return 0 ;;
                -o | --output) value='<file>' && return 0 ;;
                --passphrase-env) value='<variable>' && return 0 ;;
            esac
            ;;
        'batuta pacha sign')
            options='--identity --key --passphrase-env -o --output --expires --ignore --follow-symlinks --format --inside --oms-key --cached -f --force --json -q --quiet -h --help'
            case ${2-} in
                --identity | --expires | --ignore) value='' && return 0 ;;
                --key | -o | --output | --oms-key | [1-9]*) value='<file>' && return 0 ;;
                --passphrase-env) value='<variable>' && return 0 ;;
                --format) value='bundle pacha1' && return 0 ;;
            esac
            ;;
        'batuta pacha verify')
            options='--signature --key --identity --digest --name --require --trust --ca --trusted-root --issuer --at --allow-unsigned --allow-pacha1 --cached --report --json -q --quiet -h --help'
            case ${2-} in
                --signature | --key | --trust | --ca | --trusted-root | [1-9]*) value='<file>' && return 0 ;;
                --identity | --digest | --name | --require | --issuer | --at | --allow-unsigned | --report) value='' && return 0 ;;
            esac
            ;;
        'batuta pacha run')
            options='--signature --key --identity --digest --name --require --trust --ca --trusted-root --issuer --at --allow-unsigned --allow-pacha1 --password-env --password-file --allow-kdf-memory --max-memory --allow-swap --json -q --quiet -h --help'
            case ${2-} in
                2) value='<program>' && return 0 ;;
                --signature | --key | --trust | --ca | --trusted-root | --password-file | 1 | [1-9]*) value='<file>' && return 0 ;;
                --identity | --digest | --name | --require | --issuer | --at | --allow-unsigned | --allow-kdf-memory | --max-memory) value='' && return 0 ;;
                --password-env) value='<variable>' && return 0 ;;
            esac
            ;;
        'batuta pacha hash')
            options='-c --check --ignore-missing --algorithm --ignore --follow-symlinks --json -q --quiet -h --help'
            case ${2-} in
                -c | --check | [1-9]*) value='<file>' && return 0 ;;
                --algorithm) value='blake3 sha256' && return 0 ;;
                --ignore) value='' && return 0 ;;
            esac
            ;;
        'batuta pacha encrypt')
            options='--password-env --password-file -o --output --format -f --force --json -q --quiet -h --help'
            case ${2-} in
                --password-env) value='<variable>' && return 0 ;;
                --password-file | -o | --output | 1) value='<file>' && return 0 ;;
                --format) value='1 2' && return 0 ;;
            esac
            ;;
        'batuta pacha decrypt')
            options='--password-env --password-file -o --output --allow-kdf-memory -f --force --json -q --quiet -h --help'
            case ${2-} in
                --password-env) value='<variable>' && return 0 ;;
                --password-file | -o | --output | 1) value='<file>' && return 0 ;;
                --allow-kdf-memory) value='' && return 0 ;;
            esac
            ;;
        'batuta pacha inspect')
            options='--json -q --quiet -h --help'
            case ${2-} in
                1) value='<file>' && return 0 ;;
            esac
            ;;
        'batuta pacha check')
            options='--json -q --quiet -h --help'
            case ${2-} in
                [1-9]*) value='<file>' && return 0 ;;
            esac
            ;;
        'batuta pacha keys')
            subcommands='list export import rotate rename remove'
            options='--json -q --quiet -h --help'
            ;;
        'batuta pacha keys list')
            options='--json -q --quiet -h --help'
            ;;
        'batuta pacha keys export')
            options='--format -o --output -f --force --json -q --quiet -h --help'
            case ${2-} in
                --format) value='pem openssh inline' && return 0 ;;
                -o | --output) value='<file>' && return 0 ;;
                1) value='' && return 0 ;;
            esac
            ;;
        'batuta pacha keys import')
            options='--identity --passphrase-env -f --force --json -q --quiet -h --help'
            case ${2-} in
                --identity) value='' && return 0 ;;
                --passphrase-env) value='<variable>' && return 0 ;;
                1) value='<file>' && return 0 ;;
            esac
            ;;
        'batuta pacha keys rotate')
            options='--passphrase-env --new-passphrase-env --endorsement --json -q --quiet -h --help'
            case ${2-} in
                --passphrase-env | --new-passphrase-env) value='<variable>' && return 0 ;;
                --endorsement) value='<file>' && return 0 ;;
                1) value='' && return 0 ;;
            esac
            ;;
        'batuta pacha keys rename')
            options='--json -q --quiet -h --help'
            case ${2-} in
                1 | 2) value='' && return 0 ;;
            esac
            ;;
        'batuta pacha keys remove')
            options='-y --yes --json -q --quiet -h --help'
            case ${2-} in
                1) value='' && return 0 ;;
            esac
            ;;
        'batuta pacha trust')
            subcommands='add list remove revoke retire export import'
            options='--json -q --quiet -h --help'
            ;;
        'batuta pacha trust add')
            options='--endorsed-by --valid-from --valid-until --json -q --quiet -h --help'
            case ${2-} in
                --endorsed-by | 2) value='<file>' && return 0 ;;
                --valid-from | --valid-until | 1) value='' && return 0 ;;
            esac
            ;;
        'batuta pacha trust list')
            options='--json -q --quiet -h --help'
            ;;
        'batuta pacha trust remove')
            options='--json -q --quiet -h --help'
            case ${2-} in
                1) value='<file>' && return 0 ;;
            esac
            ;;
        'batuta pacha trust revoke')
            options='--reason --json -q --quiet -h --help'
            case ${2-} in
                --reason) value='' && return 0 ;;
                1) value='<file>' && return 0 ;;
            esac
            ;;
        'batuta pacha trust retire')
            options='--from --json -q --quiet -h --help'
            case ${2-} in
                --from) value='' && return 0 ;;
                1) value='<file>' && return 0 ;;
            esac
            ;;
        'batuta pacha trust export')
            options='-o --output -f --force --json -q --quiet -h --help'
            case ${2-} in
                -o | --output) value='<file>' && return 0 ;;
            esac
            ;;
        'batuta pacha trust import')
            options='-y --yes --json -q --quiet -h --help'
            case ${2-} in
                1) value='<file>' && return 0 ;;
            esac
            ;;
        'batuta pacha store')
            subcommands='add path get list verify remove gc'
            options='--json -q --quiet -h --help'
            ;;
        'batuta pacha store add')
            options='--name --link --follow-symlinks -f --force --json -q --quiet -h --help'
            case ${2-} in
                --name) value='' && return 0 ;;
                [1-9]*) value='<file>' && return 0 ;;
            esac
            ;;
        'batuta pacha store path')
            options='--json -q --quiet -h --help'
            case ${2-} in
                1) value='' && return 0 ;;
            esac
            ;;
        'batuta pacha store get')
            options='--json -q --quiet -h --help'
            case ${2-} in
                1 | 2) value='' && return 0 ;;
            esac
            ;;
        'batuta pacha store list')
            options='--json -q --quiet -h --help'
            ;;
        'batuta pacha store verify')
            options='--json -q --quiet -h --help'
            case ${2-} in
                [1-9]*) value='' && return 0 ;;
            esac
            ;;
        'batuta pacha store remove')
            options='-f --force --json -q --quiet -h --help'
            case ${2-} in
                [1-9]*) value='' && return 0 ;;
            esac
            ;;
        'batuta pacha store gc')
            options='-n --dry-run --damaged --json -q --quiet -h --help'
            ;;
        'batuta serve')
            subcommands='template context backends route chat gateway env launch audit budget keys'
            options='--json -q --quiet -h --help'
            ;;
        'batuta serve template')
            subcommands='lint diff'
            options='--model --format --template --bos --eos -m --messages --system --user --no-generation-prompt --continue --var --system-fallback --on-injection --date --count --strict --list --detect --json -q --quiet -h --help'
            case ${2-} in
                --model | --format | --bos | --eos | --system | --user | --var | --date) value='' && return 0 ;;
                --template | -m | --messages) value='<file>' && return 0 ;;
                --system-fallback) value='error merge drop' && return 0 ;;
                --on-injection) value='warn error escape strip' && return 0 ;;
            esac
            ;;
        'batuta serve template lint')
            options='--ignore --tokenizer --sarif --json -q --quiet -h --help'
            case ${2-} in
                --ignore) value='' && return 0 ;;
                --tokenizer | 1) value='<file>' && return 0 ;;
            esac
            ;;
        'batuta serve template diff')
            options='-m --messages --tokenizer --json -q --quiet -h --help'
            case ${2-} in
                -m | --messages | --tokenizer | 1 | 2) value='<file>' && return 0 ;;
            esac
            ;;
        'batuta serve context')
            options='--model -m --messages --system --user --strategy --window --reserve --tokenizer --var --system-fallback --backend --privacy --json -q --quiet -h --help'
            case ${2-} in
                --model | --system | --user | --window | --reserve | --var | --backend) value='' && return 0 ;;
                -m | --messages | --tokenizer) value='<file>' && return 0 ;;
                --strategy) value='sliding-window middle-out error' && return 0 ;;
                --system-fallback) value='error merge drop' && return 0 ;;
                --privacy) value='sovereign private standard' && return 0 ;;
            esac
            ;;
        'batuta serve backends')
            options='--privacy --probe --all --json -q --quiet -h --help'
            case ${2-} in
                --privacy) value='sovereign private standard' && return 0 ;;
            esac
            ;;
        'batuta serve route')
            options='--privacy --latency --throughput --cost --model --backend --queue-depth --no-spillover --configured --explain --input-tokens --max-output-tokens -m --messages --system --user --ledger --set --json -q --quiet -h --help'
            case ${2-} in
                --privacy) value='sovereign private standard' && return 0 ;;
                --latency) value='realtime interactive batch' && return 0 ;;
                --throughput) value='low medium high' && return 0 ;;
                --cost) value='frugal balanced premium' && return 0 ;;
                --model | --backend | --queue-depth | --input-tokens | --max-output-tokens | --system | --user | --ledger | --set) value='' && return 0 ;;
                -m | --messages) value='<file>' && return 0 ;;
            esac
            ;;
        'batuta serve chat')
            options='-M --model --system -m --messages --max-tokens --temperature --seed --no-stream --stream --privacy --backend --ledger --set --json -q --quiet -h --help'
            case ${2-} in
                -M | --model | --system | --max-tokens | --temperature | --seed | --backend | --ledger | --set | [1-9]*) value='' && return 0 ;;
                -m | --messages) value='<file>' && return 0 ;;
                --privacy) value='standard private sovereign' && return 0 ;;
            esac
            ;;
        'batuta serve gateway')
            options='--host --port --workers --ledger --set --json -q --quiet -h --help'
            case ${2-} in
                --host | --port | --workers | --ledger | --set) value='' && return 0 ;;
            esac
            ;;
        'batuta serve env')
            options='--model --url --key-env --shell --json -q --quiet -h --help'
            case ${2-} in
                --model | --url | 1) value='' && return 0 ;;
                --key-env) value='<variable>' && return 0 ;;
                --shell) value='sh bash zsh fish powershell' && return 0 ;;
            esac
            ;;
        'batuta serve launch')
            options='--model --url --key-env --json -q --quiet -h --help'
            case ${2-} in
                --model | --url | 1 | [1-9]*) value='' && return 0 ;;
                --key-env) value='<variable>' && return 0 ;;
            esac
            ;;
        'batuta serve audit')
            subcommands='verify head seal prove'
            options='--json -q --quiet -h --help'
            ;;
        'batuta serve audit verify')
            options='--head --sealed --key --identity --json -q --quiet -h --help'
            case ${2-} in
                --head | --sealed | --key | [1-9]*) value='<file>' && return 0 ;;
                --identity) value='' && return 0 ;;
            esac
            ;;
        'batuta serve audit head')
            options='--json -q --quiet -h --help'
            case ${2-} in
                [1-9]*) value='<file>' && return 0 ;;
            esac
            ;;
        'batuta serve audit seal')
            options='--identity --name --key --passphrase-env -o --output -f --force --json -q --quiet -h --help'
            case ${2-} in
                --identity | --name) value='' && return 0 ;;
                --key | -o | --output | [1-9]*) value='<file>' && return 0 ;;
                --passphrase-env) value='<variable>' && return 0 ;;
            esac
            ;;
        'batuta serve audit prove')
            options='--tier --since --sealed --key --identity --json -q --quiet -h --help'
            case ${2-} in
                --tier | --since | --identity) value='' && return 0 ;;
                --sealed | --key | [1-9]*) value='<file>' && return 0 ;;
            esac
            ;;
        'batuta serve budget')
            subcommands='status check record history set reset'
            options='--json -q --quiet -h --help'
            ;;
        'batuta serve budget status')
            options='--key --ledger --json -q --quiet -h --help'
            case ${2-} in
                --key | --ledger) value='' && return 0 ;;
            esac
            ;;
        'batuta serve budget check')
            options='--estimate --model --backend --input-tokens --max-output-tokens --allow-unpriced --ledger --json -q --quiet -h --help'
            case ${2-} in
                --estimate | --model | --backend | --input-tokens | --max-output-tokens | --ledger) value='' && return 0 ;;
            esac
            ;;
        'batuta serve budget record')
            options='--cost --model --backend --input-tokens --output-tokens --allow-unpriced --ledger --json -q --quiet -h --help'
            case ${2-} in
                --cost | --model | --backend | --input-tokens | --output-tokens | --ledger) value='' && return 0 ;;
            esac
            ;;
        'batuta serve budget history')
            options='--days --by --csv --ledger --json -q --quiet -h --help'
            case ${2-} in
                --days | --ledger) value='' && return 0 ;;
                --by) value='model key' && return 0 ;;
            esac
            ;;
        'batuta serve budget set')
            options='--daily-budget --max-request-cost --warning-threshold --timezone --ledger --json -q --quiet -h --help'
            case ${2-} in
                --daily-budget | --max-request-cost | --warning-threshold | --timezone | --ledger) value='' && return 0 ;;
            esac
            ;;
        'batuta serve budget reset')
            options='-y --yes --ledger --json -q --quiet -h --help'
            case ${2-} in
                --ledger) value='' && return 0 ;;
            esac
            ;;
        'batuta serve keys')
            subcommands='create list revoke'
            options='--json -q --quiet -h --help'
            ;;
        'batuta serve keys create')
            options='--admin --daily-budget --privacy --models --requests-per-minute --concurrent --expires --json -q --quiet -h --help'
            case ${2-} in
                --daily-budget | --privacy | --models | --requests-per-minute | --concurrent | --expires | 1) value='' && return 0 ;;
            esac
            ;;
        'batuta serve keys list')
            options='--ledger --json -q --quiet -h --help'
            case ${2-} in
                --ledger) value='' && return 0 ;;
            esac
            ;;
        'batuta serve keys revoke')
            options='--json -q --quiet -h --help'
            case ${2-} in
                1) value='' && return 0 ;;
            esac
            ;;
        'batuta config')
            subcommands='path show get set unset init'
            options='--json -q --quiet -h --help'
            ;;
        'batuta config path')
            options='--json -q --quiet -h --help'
            ;;
        'batuta config show')
            options='--origin --json -q --quiet -h --help'
            ;;
        'batuta config get')
            options='--json -q --quiet -h --help'
            case ${2-} in
                1) value='pacha.allow_pacha1 pacha.default_key budget.daily_budget_usd budget.warning_threshold budget.max_request_cost_usd budget.timezone budget.ledger budget.reservation_wait budget.allow_unbounded_tools budget.unknown_fields budget.durability privacy.tier privacy.local_networks privacy.private_networks router.spillover_threshold router.max_queue_depth router.local_backend router.spillover_backends router.spillover_enabled timeouts.connect timeouts.first_token timeouts.idle timeouts.total failover.max_retries failover.prompted failover.cooldown failover.max_cooldown failover.max_retry_after audit.rotate_bytes audit.rotate_hours audit.keep_bytes audit.keep_days network.proxy redis.username redis.password_env redis.ca_file redis.timeout gateway.host gateway.port gateway.workers gateway.origins gateway.media_hosts gateway.max_body_bytes gateway.max_bodies_bytes gateway.max_connections gateway.client_seconds gateway.key_queue gateway.key_queue_wait gateway.drain_seconds' && return 0 ;;
            esac
            ;;
        'batuta config set')
            options='--json -q --quiet -h --help'
            case ${2-} in
                1) value='pacha.allow_pacha1 pacha.default_key budget.daily_budget_usd budget.warning_threshold budget.max_request_cost_usd budget.timezone budget.ledger budget.reservation_wait budget.allow_unbounded_tools budget.unknown_fields budget.durability privacy.tier privacy.local_networks privacy.private_networks router.spillover_threshold router.max_queue_depth router.local_backend router.spillover_backends router.spillover_enabled timeouts.connect timeouts.first_token timeouts.idle timeouts.total failover.max_retries failover.prompted failover.cooldown failover.max_cooldown failover.max_retry_after audit.rotate_bytes audit.rotate_hours audit.keep_bytes audit.keep_days network.proxy redis.username redis.password_env redis.ca_file redis.timeout gateway.host gateway.port gateway.workers gateway.origins gateway.media_hosts gateway.max_body_bytes gateway.max_bodies_bytes gateway.max_connections gateway.client_seconds gateway.key_queue gateway.key_queue_wait gateway.drain_seconds' && return 0 ;;
                [1-9]*) value='' && return 0 ;;
            esac
            ;;
        'batuta config unset')
            options='--json -q --quiet -h --help'
            case ${2-} in
                1) value='pacha.allow_pacha1 pacha.default_key budget.daily_budget_usd budget.warning_threshold budget.max_request_cost_usd budget.timezone budget.ledger budget.reservation_wait budget.allow_unbounded_tools budget.unknown_fields budget.durability privacy.tier privacy.local_networks privacy.private_networks router.spillover_threshold router.max_queue_depth router.local_backend router.spillover_backends router.spillover_enabled timeouts.connect timeouts.first_token timeouts.idle timeouts.total failover.max_retries failover.prompted failover.cooldown failover.max_cooldown failover.max_retry_after audit.rotate_bytes audit.rotate_hours audit.keep_bytes audit.keep_days network.proxy redis.username redis.password_env redis.ca_file redis.timeout gateway.host gateway.port gateway.workers gateway.origins gateway.media_hosts gateway.max_body_bytes gateway.max_bodies_bytes gateway.max_connections gateway.client_seconds gateway.key_queue gateway.key_queue_wait gateway.drain_seconds' && return 0 ;;
            esac
            ;;
        'batuta config init')
            options='-f --force --json -q --quiet -h --help'
            ;;
        *) return 1 ;;
    esac
    [[ -z ${2-} ]]
}

_batuta_offer() {  # $1 stands before each of the words
    case $value in
        '') ;;
        '<file>')
            if [[ -z $1 ]]; then
                compopt -o bashdefault -o default 2>/dev/null
            else
                compopt -o filenames 2>/dev/null
                mapfile -t COMPREPLY < <(compgen -P "$1" -f -- "$cur")
            fi
            ;;
        '<program>')
            compopt -o bashdefault -o default 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -c -- "$cur")
            ;;
        '<variable>') mapfile -t COMPREPLY < <(compgen -P "$1" -e -- "$cur") ;;
        *) mapfile -t COMPREPLY < <(compgen -P "$1" -W "$value" -- "$cur") ;;
    esac
}

_batuta() {
    local IFS=$' \t\n' subcommands options value
    local command=batuta cur=${COMP_WORDS[COMP_CWORD]} word='' name=''
    local option='' separated='' option_before='' # the option whose value is next; whether -- was met
    local -i i j number=1 number_before=1         # the number of the argument that is next
    COMPREPLY=()
    _batuta_at "$command"

    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == = && $option == --* ]]; then
            continue
        elif [[ $word == [:=]* ]]; then # the word before goes on
            i+=1
            if ((i == COMP_CWORD)); then
                option=$option_before number=$number_before
            fi
            continue
        fi
        option_before=$option number_before=$number
        if [[ -n $option ]]; then
            option=''
        elif [[ $word =~ ^[0-9\&]*[\<\>]+[\&\|]?$ ]]; then
            option='>'
        elif [[ -z $separated && $word == -- ]]; then
            separated=1
        elif [[ -z $separated && $word == --* ]]; then
            if [[ $word != *=* ]] && _batuta_at "$command" "$word"; then
                option=$word
            fi
        elif [[ -z $separated && $word == -?* ]]; then
            for ((j = 1; j < ${#word}; j++)); do # -fo FILE, or -foFILE
                name=-${word:j:1}
                if _batuta_at "$command" "$name"; then
                    ((j + 1 < ${#word})) || option=$name
                    break
                fi
            done
        else
            _batuta_at "$command"
            if [[ -z $subcommands ]]; then
                number+=1
            elif [[ " $subcommands " == *" $word "* ]]; then
                command+=" $word"
            else
                return 0
            fi
        fi
    done

    if [[ $cur == : || ($cur == = && -z $option) ]]; then
        option=$option_before number=$number_before
    fi
    [[ $cur == [:=] ]] && cur=''
    _batuta_at "$command"
    if [[ $option == '>' ]]; then
        value='<file>'
        _batuta_offer ''
    elif [[ -n $option ]]; then
        _batuta_at "$command" "$option"
        _batuta_offer ''
    elif [[ -z $separated && $cur == --*=* ]]; then
        name=${cur%%=*} cur=${cur#*=}
        _batuta_at "$command" "$name" && _batuta_offer "$name="
    elif [[ -z $separated && $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
    elif [[ -n $subcommands ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$subcommands" -- "$cur")
    elif _batuta_at "$command" "$number"; then
        _batuta_offer ''
    fi
    return 0
}

complete -F _batuta batuta
