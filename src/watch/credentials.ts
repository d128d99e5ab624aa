/**
 * Who we are to the API server, and who it must be to us: certificates, tokens and where they are kept. What is a file
 * is read anew for each connection that is opened, because kubelets and projected volumes replace them under way.
 *
 * @module
 */

import { readFile } from 'node:fs/promises';
import { ApiError } from './api-error.ts';

/** PEM or a token, given or in a file. */
export type Material =
  | { readonly kind: 'given'; readonly text: string }
  | { readonly kind: 'file'; readonly path: string };

/** What a plugin of a kubeconfig says at this moment. */
export interface PluginCredentials {
  readonly headers: Readonly<Record<string, string>>;
  readonly cert?: string;
  readonly key?: string;
}

export type ApiAuth =
  | { readonly kind: 'none' }
  | { readonly kind: 'token'; readonly token: Material }
  | { readonly kind: 'basic'; readonly username: string; readonly password: string }
  /** Asked before each request; it caches on its own. */
  | { readonly kind: 'plugin'; readonly read: () => Promise<PluginCredentials> };

export interface ApiTls {
  /** Undefined: the authorities that Node trusts. */
  readonly ca?: Material;
  /** Client certificate, with `key`. */
  readonly cert?: Material;
  readonly key?: Material;
  /** Name the server's certificate must have, where it is not the one of the URL. */
  readonly serverName?: string;
  readonly insecureSkipVerify?: boolean;
}

/** How to reach an API server. */
export interface ApiCluster {
  /** Base URLs of the same cluster, in order of preference. A path is kept as prefix. */
  readonly servers: readonly [string, ...string[]];
  readonly tls: ApiTls;
  readonly auth: ApiAuth;
  /** Sent with each request: impersonation. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** Credentials as they are at this moment, as node:https takes them. */
export interface ReadCredentials {
  readonly headers: Readonly<Record<string, string>>;
  readonly tls: {
    readonly ca?: string;
    readonly cert?: string;
    readonly key?: string;
    readonly servername?: string;
    readonly rejectUnauthorized: boolean;
  };
}

/**
 * Reads what a cluster's credentials are now.
 *
 * @throws {ApiError} With code `CREDENTIALS` if a file or a plugin does not give them.
 */
export async function readCredentials(cluster: ApiCluster): Promise<ReadCredentials> {
  const [ca, given, own] = await Promise.all([
    readMaterial('the CA', cluster.tls.ca),
    readClientCertificate(cluster.tls),
    readAuth(cluster.auth),
  ]);
  const cert = own.cert ?? given.cert;
  const key = own.key ?? given.key;
  const { serverName } = cluster.tls;
  return {
    headers: { ...cluster.headers, ...own.headers },
    tls: {
      ...(ca !== undefined && { ca }),
      ...(cert !== undefined && { cert }),
      ...(key !== undefined && { key }),
      ...(serverName !== undefined && { servername: serverName }),
      rejectUnauthorized: cluster.tls.insecureSkipVerify !== true,
    },
  };
}

async function readClientCertificate(tls: ApiTls): Promise<{ cert?: string | undefined; key?: string | undefined }> {
  const cert = await readMaterial('the client certificate', tls.cert);
  const key = await readMaterial('the client key', tls.key);
  return { cert, key };
}

async function readAuth(auth: ApiAuth): Promise<PluginCredentials> {
  switch (auth.kind) {
    case 'none':
      return { headers: {} };
    case 'token': {
      const token = (await readMaterial('the bearer token', auth.token))?.trim() ?? '';
      if (!/^[\x21-\x7e]+$/.test(token)) {
        const is = token === '' ? 'it is empty' : 'it has blanks or control characters';
        throw new ApiError(`Cannot use the bearer token${place(auth.token)}: ${is}, must be one word`, {
          code: 'CREDENTIALS',
        });
      }
      return { headers: { Authorization: `Bearer ${token}` } };
    }
    case 'basic': {
      const pair = Buffer.from(`${auth.username}:${auth.password}`).toString('base64');
      return { headers: { Authorization: `Basic ${pair}` } };
    }
    case 'plugin':
      try {
        return await auth.read();
      } catch (cause) {
        throw new ApiError(
          `Cannot get credentials from the plugin: ${cause instanceof Error ? cause.message : cause}`,
          {
            code: 'CREDENTIALS',
          },
          { cause },
        );
      }
    default:
      return auth satisfies never;
  }
}

function place(material: Material): string {
  return material.kind === 'file' ? ` in ${material.path}` : '';
}

async function readMaterial(what: string, material: Material | undefined): Promise<string | undefined> {
  if (material === undefined || material.kind === 'given') return material?.text;
  try {
    return await readFile(material.path, 'utf8');
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new ApiError(`Cannot read ${what} from ${material.path}: ${why}`, { code: 'CREDENTIALS' }, { cause });
  }
}
