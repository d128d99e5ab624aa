/**
 * Where the API server is and who we are to it: from the flags, the Pod's own account, or a kubeconfig. Neither the
 * YAML parser nor the client library is loaded unless a kubeconfig asks for it: in a cluster there is none.
 *
 * @module
 */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ApiCluster } from './credentials.ts';

const ACCOUNT_DIR = '/var/run/secrets/kubernetes.io/serviceaccount';

type Environment = Readonly<Record<string, string | undefined>>;

export interface ClusterFlags {
  /** Path of a kubeconfig; '' if there is none. */
  readonly kubeconfig: string;
  /** --master: base URLs, instead of the server in the kubeconfig; empty if not given. */
  readonly servers: readonly string[];
  readonly env: Environment;
  /** Where the account's token and ca.crt are mounted; for tests. */
  readonly accountDir?: string;
}

/**
 * Finds the cluster: the kubeconfig, with `servers` in place of its own; without a kubeconfig
 * `servers` alone, with no credentials; without both, the Pod's account.
 *
 * @throws {SyntaxError | Error} If the kubeconfig cannot be read or used, a URL is none, or this is no Pod.
 */
export async function clusterFromFlags(flags: ClusterFlags): Promise<ApiCluster> {
  const servers = checkServers(flags.servers);
  if (flags.kubeconfig === '') {
    return servers ? { servers, tls: {}, auth: { kind: 'none' } } : inCluster(flags.env, flags.accountDir);
  }
  const { parseKubeconfig } = await import('./kubeconfig.ts');
  const text = await readFile(flags.kubeconfig, 'utf8').catch((cause: unknown) => {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`Cannot read kubeconfig ${flags.kubeconfig}: ${why}`, { cause });
  });
  const cluster = await parseKubeconfig(text, flags.kubeconfig);
  return servers ? { ...cluster, servers } : cluster;
}

/**
 * The cluster whose Pod this process is in. Token and CA stay files: kubelet replaces the token under way.
 *
 * @throws {Error} If the environment does not name the API server, as it does in every Pod.
 */
export function inCluster(env: Environment, accountDir = ACCOUNT_DIR): ApiCluster {
  const host = env['KUBERNETES_SERVICE_HOST'] ?? '';
  const port = env['KUBERNETES_SERVICE_PORT'] ?? '';
  if (host === '' || port === '') {
    throw new Error(
      'Cannot find the API server: neither --kubeconfig nor --master is given and KUBERNETES_SERVICE_HOST and _PORT are not set, one must be',
    );
  }
  return {
    servers: [checkServer(`https://${host.includes(':') ? `[${host}]` : host}:${port}`)],
    tls: { ca: { kind: 'file', path: join(accountDir, 'ca.crt') } },
    auth: { kind: 'token', token: { kind: 'file', path: join(accountDir, 'token') } },
  };
}

/**
 * Checks a base URL of an API server.
 *
 * @param text - As in `https://10.0.0.1:6443`; without a scheme it is http, as kubectl reads it.
 * @throws {SyntaxError} If it is no http or https URL.
 */
export function checkServer(text: string): string {
  const full = text.includes('://') ? text : `http://${text}`;
  const url = URL.parse(full);
  if (
    url === null ||
    !['http:', 'https:'].includes(url.protocol) ||
    url.search !== '' ||
    url.hash !== '' ||
    url.username !== '' ||
    url.password !== ''
  ) {
    throw new SyntaxError(
      `Cannot use "${text}" as API server: must be an http or https URL without user, query and fragment`,
    );
  }
  return full.replace(/\/+$/, '');
}

function checkServers(texts: readonly string[]): ApiCluster['servers'] | undefined {
  const [first, ...rest] = texts.map(checkServer);
  return first === undefined ? undefined : [first, ...rest];
}
