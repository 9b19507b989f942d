#!/bin/sh
# Makes the certificates that tests of TLS use, anew. Their keys are public: nothing but a test may trust them.
set -eu
cd "$(dirname "$0")"

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

# NAME ALTERNATIVE-NAMES FIRST-DAY LAST-DAY: a certificate that the authority has signed.
signed() {
    key "$1.key"
    openssl req -new -key "$1.key" -subj "/CN=$1" -out "$work/request"
    printf 'subjectAltName=%s\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n' "$2" > "$work/extensions"
    openssl ca -batch -notext -config "$work/config" -in "$work/request" -extfile "$work/extensions" \
        -cert ca.pem -keyfile "$work/ca.key" -startdate "${3}000000Z" -enddate "${4}000000Z" -out "$1.pem"
}

work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
: > "$work/index"
openssl rand -hex 16 > "$work/serial"
cat > "$work/config" <<EOF
[ca]
default_ca = tests
[tests]
database = $work/index
new_certs_dir = $work
serial = $work/serial
default_md = sha256
policy = names
[names]
commonName = supplied
EOF

key "$work/ca.key"
openssl req -x509 -key "$work/ca.key" -subj "/CN=Authority of tests" -days 36500 -out ca.pem \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
signed pool DNS:localhost,IP:127.0.0.1 20260101 21260101
signed renewed DNS:localhost,IP:127.0.0.1 20260101 21260101
signed elsewhere DNS:elsewhere.example 20260101 21260101
signed expired DNS:localhost,IP:127.0.0.1 20250101 20250401
# As `openssl req -x509` makes them unless it is told otherwise: signed by itself, and marked as an authority.
key self.key
openssl req -x509 -key self.key -subj "/CN=localhost" -days 36500 -out self.pem -addext subjectAltName=DNS:localhost
# And as a server has to have it (docs/pool.md).
key own.key
openssl req -x509 -key own.key -subj "/CN=pool" -days 36500 -out own.pem -addext subjectAltName=DNS:localhost \
    -addext basicConstraints=critical,CA:FALSE
