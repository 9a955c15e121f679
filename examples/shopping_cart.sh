#!/usr/bin/env bash
# One cart, two shoppers at the same time, with nothing but bash and curl: nothing is lost.
#
# Both read the cart, both add something, both PUT with the context they read. The store keeps both
# writes as siblings; who reads them next merges them and puts the result back.
#
#     kvorum up
#     bash examples/shopping_cart.sh
set -euo pipefail
http=${KVORUM_HTTP:-http://127.0.0.1:7481}
cart=$http/tables/default/keys/cart-$$
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# The value of one header of the answer in $answer, which curl wrote with --include.
header() { sed -n "s/^$1: \(.*\)\r\$/\1/Ip" "$answer" | head -n 1; }

# put VALUE [CONTEXT [PUT-ID]]: fails unless the answer is 204, so unless it is written.
put() {
    local headers=(--header 'Content-Type: application/json')
    [ -z "${2:-}" ] || headers+=(--header "X-Kvorum-Context: $2")
    [ -z "${3:-}" ] || headers+=(--header "X-Kvorum-Put-Id: $3")
    curl --silent --fail --include --request PUT "${headers[@]}" --data-binary "$1" "$cart" >"$answer"
}

# The values of all siblings in $answer, one a line. Each part of multipart/mixed has a header, an
# empty line and a body, which is one line here.
siblings() {
    local boundary
    boundary=$(sed -n 's/^Content-Type: multipart\/mixed; boundary="\(.*\)"\r$/--\1/Ip' "$answer")
    tr -d '\r' <"$answer" | awk -v boundary="$boundary" '
        $0 == boundary { part = 1; body = 0; next }
        part && !body && $0 == "" { body = 1; next }
        part && body { print; part = 0 }' | sort
}

# Every item of the carts on standard input, once.
merged() { tr -d '[]" ' | tr ',' '\n' | sort -u | sed 's/.*/"&"/' | paste -sd, | sed 's/,/, /g; s/.*/[&]/'; }

put '["book"]'
curl --silent --include "$cart" >"$answer"
seen=$(header X-Kvorum-Context)
put '["book", "pen"]' "$seen"
put '["book", "lamp"]' "$seen"

curl --silent --include "$cart" >"$answer"
echo "the cart after two shoppers wrote at the same time: $(siblings | wc -l) siblings"
siblings | sed 's/^/  /'

put "$(siblings | merged)" "$(header X-Kvorum-Context)"
echo "merged and put back: $(curl --silent --fail "$cart")"

# Whoever does not know whether a write arrived sends it again under the same id.
curl --silent --include "$cart" >"$answer"
seen=$(header X-Kvorum-Context)
id=$(date +%s%3N)-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
put '["book"]' "$seen" "$id"
put '["book"]' "$seen" "$id"
status=$(curl --silent --output "$answer" --write-out '%{http_code}' "$cart")
[ "$status" = 200 ] && echo "a put sent twice under one id was written once"

curl --silent --fail --request DELETE "$cart"
echo "deleted: $(curl --silent --output "$answer" --write-out '%{http_code}' "$cart")"
