/**
 * The two forms of a rule's text: as `iptables-restore` is given it, and as `iptables-save` prints it afterwards. A
 * read-back dump is compared with the plan in the second form, so it must be exact to the byte.
 *
 * Both forms are the *body* of a rule: what stands behind `-A CHAIN `.
 *
 * @module
 */

import { assertNever, type Family } from '../proxier/types.ts';
import type { Mark, Match, ProtocolName, Rule, Target } from './rule.ts';

/** The mark as it is written: `0x` and eight digits. spec: iptables.md §1. */
export function formatMark(mark: Mark): string {
  return `0x${mark.toString(16).padStart(8, '0')}`;
}

/**
 * A number with a fixed count of decimals, ties to the even digit, as C and Go print it. `toFixed` differs on ties only
 * (it takes the larger), and a tie is a value that has exactly one binary digit more than there are decimals.
 */
function toFixedHalfEven(value: number, decimals: number): string {
  const up = value.toFixed(decimals);
  const scaled = value * 2 ** (decimals + 1);
  const isTie = Number.isInteger(scaled) && scaled % 2 === 1;
  return isTie && Number(up.at(-1)) % 2 === 1 ? value.toFixed(decimals + 1).slice(0, -1) : up;
}

/** 1/of with ten decimals, as it is written: `0.3333333333`. */
export function formatProbability(of: number): string {
  return toFixedHalfEven(1 / of, 10);
}

/** 1/of as the kernel keeps it (in units of 2^-31) and the tool prints it back: `0.33333333349`. */
export function formatSavedProbability(of: number): string {
  return toFixedHalfEven(Math.round(Number(formatProbability(of)) * 2 ** 31) / 2 ** 31, 11);
}

const not = (negated = false) => (negated ? '! ' : '');

/** The body of a rule as `iptables-restore` takes it, in the order of its matches. */
export function formatRestore(rule: Rule): string {
  let out = '';
  for (const match of rule.matches) out += out === '' ? restoreMatch(match) : ` ${restoreMatch(match)}`;
  const target = rule.target === undefined ? '' : `-j ${restoreTarget(rule.target)}`;
  return out === '' ? target : target === '' ? out : `${out} ${target}`;
}

function restoreMatch(match: Match): string {
  switch (match.kind) {
    case 'comment':
      return `-m comment --comment ${match.text.includes(' ') ? `"${match.text}"` : match.text}`;
    case 'protocol':
      return `-m ${match.protocol} -p ${match.protocol}`;
    case 'onlyProtocol':
      return `-p ${match.protocol}`;
    case 'source':
      return `${not(match.negated)}-s ${match.address}`;
    case 'destination':
      return `${not(match.negated)}-d ${match.address}`;
    case 'inInterface':
      return `${not(match.negated)}-i ${match.name}`;
    case 'dport':
      return `--dport ${match.port}`;
    case 'ctstate':
      return `-m conntrack ${not(match.negated)}--ctstate ${match.states}`;
    case 'mark':
      return `-m mark ${not(match.negated)}--mark ${formatMark(match.mark)}/${formatMark(match.mark)}`;
    case 'addrtype':
      return `-m addrtype ${not(match.negated)}--${match.side}-type LOCAL`;
    case 'physdevIn':
      return `-m physdev ${not(match.negated)}--physdev-is-in`;
    case 'set':
      return `-m set --match-set ${match.name} ${match.directions}`;
    case 'virtualServer':
      return `-m ipvs --vaddr ${match.address} --vproto ${match.protocol} --vport ${match.port}`;
    case 'random':
      return `-m statistic --mode random --probability ${formatProbability(match.of)}`;
    case 'recentCheck':
      return `-m recent --name ${match.list} --rcheck --seconds ${match.seconds} --reap`;
    case 'recentSet':
      return `-m recent --name ${match.list} --set`;
    case 'nfacct':
      return `-m nfacct --nfacct-name ${match.counter}`;
    default:
      return assertNever(match, 'match');
  }
}

function restoreTarget(target: Target): string {
  switch (target.kind) {
    case 'jump':
      return target.chain;
    case 'verdict':
      return target.verdict;
    case 'reject':
      return 'REJECT';
    case 'masquerade':
      return target.randomFully ? 'MASQUERADE --random-fully' : 'MASQUERADE';
    case 'setMark':
      return `MARK --or-mark ${formatMark(target.mark)}`;
    case 'flipMark':
      return `MARK --xor-mark ${formatMark(target.mark)}`;
    case 'dnat':
      return `DNAT --to-destination ${target.to}`;
    default:
      return assertNever(target, 'target');
  }
}

/**
 * The body of a rule as `iptables-save` (IPv4) or `ip6tables-save` (IPv6) prints it.
 *
 * `-s`, `-d`, `-i` and `-p` come first, then the matches in their order, then the target. Checked against iptables 1.8.9,
 * whose two flavours print the same. spec: iptables.md §19.
 */
export function formatSaved(rule: Rule, family: Family): string {
  let from = '';
  let to = '';
  let inInterface = '';
  let protocol = '';
  let dport = '';
  for (const match of rule.matches) {
    switch (match.kind) {
      case 'source':
        if (match.negated || !match.address.endsWith('/0'))
          from = `${not(match.negated)}-s ${savedAddress(match.address)} `;
        break;
      case 'destination':
        if (match.negated || !match.address.endsWith('/0'))
          to = `${not(match.negated)}-d ${savedAddress(match.address)} `;
        break;
      case 'inInterface':
        inInterface = `${not(match.negated)}-i ${match.name} `;
        break;
      case 'protocol':
      case 'onlyProtocol':
        protocol = `-p ${match.protocol} `;
        break;
      case 'dport':
        dport = `--dport ${match.port} `;
        break;
      default:
    }
  }
  let out = from + to + inInterface + protocol;
  for (const match of rule.matches) out += savedMatch(match, family, dport);
  return rule.target === undefined ? out.slice(0, -1) : `${out}-j ${savedTarget(rule.target, family)}`;
}

/** What stands among the matches of the saved form, with a blank behind it; '' for what stands before them. */
function savedMatch(match: Match, family: Family, dport: string): string {
  switch (match.kind) {
    case 'comment':
      return `-m comment --comment ${savedComment(match.text)} `;
    case 'protocol':
      return `-m ${match.protocol} ${dport}`;
    case 'source':
    case 'destination':
    case 'inInterface':
    case 'onlyProtocol':
    case 'dport':
      return '';
    case 'ctstate':
      return `-m conntrack ${not(match.negated)}--ctstate ${match.states} `;
    case 'mark':
      return `-m mark ${not(match.negated)}--mark ${hex(match.mark)}/${hex(match.mark)} `;
    case 'addrtype':
      return `-m addrtype ${not(match.negated)}--${match.side}-type LOCAL `;
    case 'physdevIn':
      return `-m physdev ${not(match.negated)}--physdev-is-in `;
    case 'set':
      return `-m set --match-set ${match.name} ${match.directions} `;
    case 'virtualServer': {
      const { address, protocol, port } = match;
      return `-m ipvs --vproto ${PROTOCOL_NUMBERS[protocol]} --vaddr ${libcAddress(address)} --vport ${port} `;
    }
    case 'random':
      return `-m statistic --mode random --probability ${formatSavedProbability(match.of)} `;
    case 'recentCheck':
      return `-m recent --rcheck --seconds ${match.seconds} --reap --name ${match.list} ${RECENT_TAIL[family]} `;
    case 'recentSet':
      return `-m recent --set --name ${match.list} ${RECENT_TAIL[family]} `;
    case 'nfacct':
      // Two blanks: the tool prints them.
      return `-m nfacct --nfacct-name  ${match.counter} `;
    default:
      return assertNever(match, 'match');
  }
}

function savedTarget(target: Target, family: Family): string {
  switch (target.kind) {
    case 'jump':
      return target.chain;
    case 'verdict':
      return target.verdict;
    case 'reject':
      return `REJECT --reject-with ${family === 'IPv4' ? 'icmp' : 'icmp6'}-port-unreachable`;
    case 'masquerade':
      return target.randomFully ? 'MASQUERADE --random-fully' : 'MASQUERADE';
    case 'setMark':
      return `MARK --set-xmark ${hex(target.mark)}/${hex(target.mark)}`;
    case 'flipMark':
      return `MARK --set-xmark ${hex(target.mark)}/0x0`;
    case 'dnat': {
      const v6 = /^\[(.*)\](.*)$/.exec(target.to);
      return `DNAT --to-destination ${v6 ? `[${libcAddress(v6[1] ?? '')}]${v6[2]}` : target.to}`;
    }
    default:
      return assertNever(target, 'target');
  }
}

/** The tool prints this one protocol as a number. */
const PROTOCOL_NUMBERS: Readonly<Record<ProtocolName, number>> = { tcp: 6, udp: 17, sctp: 132 };

const RECENT_TAIL: Readonly<Record<Family, string>> = {
  IPv4: '--mask 255.255.255.255 --rsource',
  IPv6: '--mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rsource',
};

const hex = (mark: Mark) => `0x${mark.toString(16)}`;

/** libxtables' own quoting: bare if nothing in it could need quotes. */
function savedComment(text: string): string {
  return /^[A-Za-z0-9_-]+$/.test(text) ? text : `"${text.replace(/["'\\]/g, '\\$&')}"`;
}

function savedAddress(address: string): string {
  const slash = address.indexOf('/');
  if (!address.includes(':')) return slash < 0 ? `${address}/32` : address;
  if (slash < 0) return `${libcAddress(address)}/128`;
  return libcAddress(address.slice(0, slash)) + address.slice(slash);
}

/**
 * An IPv6 address as the C library prints it: RFC 5952, but for addresses of six zero groups (`::102:304`), which it
 * prints with a dotted end (`::1.2.3.4`).
 */
function libcAddress(address: string): string {
  const groups = /^::([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(address);
  if (groups === null) return address;
  const bits = ((Number.parseInt(groups[1] ?? '', 16) << 16) | Number.parseInt(groups[2] ?? '', 16)) >>> 0;
  return `::${bits >>> 24}.${(bits >>> 16) & 255}.${(bits >>> 8) & 255}.${bits & 255}`;
}
