/**
 * The forms of names that Kubernetes accepts. What passes here may stand in a rule, a comment and a log line: there
 * is no quote, no blank and no line break in any of them.
 *
 * @module
 */

const DNS_LABEL = /^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$/;
const DNS_SUBDOMAIN = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*$/;
const LABEL_VALUE = /^(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/;
const DNS_SUBDOMAIN_CHARS = 253;

export const DNS_LABEL_FORM = 'a DNS label: 1..63 of a-z, 0-9 and "-", with a letter or digit at both ends';
export const DNS_SUBDOMAIN_FORM = 'a DNS subdomain: at most 253 characters, labels of a-z, 0-9 and "-" joined by "."';
export const LABEL_VALUE_FORM =
  'a label value: at most 63 of letters, digits, "-", "_" and ".", with a letter or digit at both ends';

/** Namespaces, Services and named ports (RFC 1123; since Kubernetes 1.34 a Service may start with a digit). */
export function isDnsLabel(text: string): boolean {
  return DNS_LABEL.test(text);
}

/** EndpointSlices, Nodes and ServiceCIDRs. */
export function isDnsSubdomain(text: string): boolean {
  return text.length <= DNS_SUBDOMAIN_CHARS && DNS_SUBDOMAIN.test(text);
}

/** Values of labels; '' is one. */
export function isLabelValue(text: string): boolean {
  return LABEL_VALUE.test(text);
}
