#!/bin/sh
# npm start: installs what is missing, then shows Switchyard at work on a little cluster in network namespaces.
# Arguments are passed on: npm start -- --json
set -eu
cd "$(dirname "$0")/.."
sh scripts/install.sh lab
PATH="$PWD/node_modules/.bin:$PATH:/usr/sbin:/sbin"
export PATH
exec node src/main.ts lab demo "$@"
