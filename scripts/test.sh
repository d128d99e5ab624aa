#!/bin/sh
# npm test: installs what the tests need, then types, lint and every test (kernel tests included), on Node 24.
# Arguments are passed on: npm test -- test/kernel
set -eu
cd "$(dirname "$0")/.."
if [ "$(id -u)" -ne 0 ]; then
  echo "npm test: Cannot run the kernel tests as an ordinary user: run it as root (npm run ok needs no root)" >&2
  exit 2
fi
sh scripts/install.sh lab test
export PATH="$PWD/node_modules/.bin:$PATH:/usr/sbin:/sbin"
# tap compiles its own plugins once; two first runs side by side would do it twice into the same folder.
tap build >/dev/null
exec node scripts/test.ts "$@"
