/**
 * Kubeconfig files. What most of them hold (a server, a CA, a certificate or a token) is read here; only a user with
 * an exec or auth-provider plugin costs the client library, about 85 MB resident.
 *
 * @module
 */

import { dirname, isAbsolute, join as joinPath } from 'node:path';
import { parse } from 'yaml';
import { checkServer } from './cluster.ts';
import type { ApiAuth, ApiCluster, ApiTls, Material, PluginCredentials } from './credentials.ts';
import {
  DecodeError,
  isJsonObject,
  type JsonObject,
  objectEntry,
  optionalBoolean,
  optionalList,
  optionalObject,
  optionalString,
  refuse,
  stringEntry,
} from './decode-error.ts';

/**
 * Reads the current context of a kubeconfig.
 *
 * @param text - YAML or JSON.
 * @param path - The file it is from: paths in it are relative to that, and errors name it.
 * @throws {SyntaxError} If the text is no kubeconfig, or asks for what is not supported (a proxy).
 */
export async function parseKubeconfig(text: string, path: string): Promise<ApiCluster> {
  try {
    const config: unknown = parse(text);
    if (!isJsonObject(config)) return refuse('', config, 'a kubeconfig');
    return await decodeKubeconfig(config, dirname(path), path);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new SyntaxError(`Cannot use kubeconfig ${path}: ${why}`, { cause });
  }
}

async function decodeKubeconfig(config: JsonObject, dir: string, path: string): Promise<ApiCluster> {
  const contextName = optionalString(config, 'current-context', '');
  if (contextName === '') throw new DecodeError('current-context', 'is missing, must name a context');
  const context = entryNamed(config, 'contexts', contextName, 'context');
  const { value: cluster, at } = entryNamed(
    config,
    'clusters',
    optionalString(context.value, 'cluster', context.at),
    'cluster',
  );
  const userName = optionalString(context.value, 'user', context.at);
  const user = userName === '' ? { value: {}, at: 'user' } : entryNamed(config, 'users', userName, 'user');
  if (optionalString(cluster, 'proxy-url', at) !== '') {
    throw new DecodeError(`${at}.proxy-url`, 'is set, must be absent: proxies are not supported');
  }
  const ca = material(cluster, 'certificate-authority', at, dir);
  const cert = material(user.value, 'client-certificate', user.at, dir);
  const key = material(user.value, 'client-key', user.at, dir);
  const serverName = optionalString(cluster, 'tls-server-name', at);
  const tls: ApiTls = {
    ...(ca && { ca }),
    ...(cert && { cert }),
    ...(key && { key }),
    ...(serverName !== '' && { serverName }),
    insecureSkipVerify: optionalBoolean(cluster, 'insecure-skip-tls-verify', at, false),
  };
  return {
    servers: [checkServer(optionalString(cluster, 'server', at) || refuse(`${at}.server`, '', 'the URL of a server'))],
    tls,
    auth: await decodeAuth(user.value, user.at, { dir, path, contextName }),
    headers: impersonation(user.value, user.at),
  };
}

/** The entry `{name, <inside>: {…}}` of a list; what is inside, and its path for errors. */
function entryNamed(config: JsonObject, list: string, name: string, inside: string): { value: JsonObject; at: string } {
  const entries = optionalList(config, list, '', objectEntry);
  const index = entries.findIndex((entry) => entry['name'] === name);
  if (index === -1) throw new DecodeError(list, `has no entry "${name}", must have it`);
  return {
    value: optionalObject(entries[index], inside, `${list}[${index}]`) ?? {},
    at: `${list}[${index}].${inside}`,
  };
}

/** `<field>-data` in base64, or else `<field>`, a path. */
function material(from: JsonObject, field: string, at: string, dir: string): Material | undefined {
  const data = optionalString(from, `${field}-data`, at);
  if (data !== '') return { kind: 'given', text: Buffer.from(data, 'base64').toString() };
  const path = optionalString(from, field, at);
  return path === '' ? undefined : { kind: 'file', path: absolute(path, dir) };
}

function absolute(path: string, dir: string): string {
  return isAbsolute(path) ? path : joinPath(dir, path);
}

/** In the order of client-go: a plugin, the file of a token, a token, a password. */
async function decodeAuth(
  user: JsonObject,
  at: string,
  file: { readonly dir: string; readonly path: string; readonly contextName: string },
): Promise<ApiAuth> {
  const plugin = optionalObject(user, 'exec', at) ?? optionalObject(user, 'auth-provider', at);
  if (plugin !== undefined) return { kind: 'plugin', read: await loadPlugin(file.path, file.contextName) };
  const tokenFile = optionalString(user, 'tokenFile', at);
  if (tokenFile !== '') return { kind: 'token', token: { kind: 'file', path: absolute(tokenFile, file.dir) } };
  const token = optionalString(user, 'token', at);
  if (token !== '') return { kind: 'token', token: { kind: 'given', text: token } };
  const username = optionalString(user, 'username', at);
  if (username !== '') return { kind: 'basic', username, password: optionalString(user, 'password', at) };
  return { kind: 'none' };
}

function impersonation(user: JsonObject, at: string): Record<string, string> {
  const as = optionalString(user, 'as', at);
  const groups = optionalList(user, 'as-groups', at, stringEntry);
  if (groups.length > 1 || optionalString(user, 'as-uid', at) !== '') {
    throw new DecodeError(at, 'impersonates more than a user and one group, must not');
  }
  return { ...(as && { 'Impersonate-User': as }), ...(groups[0] && { 'Impersonate-Group': groups[0] }) };
}

/** The client library runs the plugin, and keeps what it said until it expires. */
async function loadPlugin(path: string, contextName: string): Promise<() => Promise<PluginCredentials>> {
  const { KubeConfig } = await import('@kubernetes/client-node');
  const config = new KubeConfig();
  config.loadFromFile(path);
  config.setCurrentContext(contextName);
  return async () => {
    const options: { headers?: Record<string, unknown>; cert?: unknown; key?: unknown } = {};
    await config.applyToHTTPSOptions(options);
    const headers = Object.entries(options.headers ?? {}).map(([name, value]) => [name, String(value)]);
    return {
      headers: Object.fromEntries(headers),
      ...(pem(options.cert) && { cert: pem(options.cert) }),
      ...(pem(options.key) && { key: pem(options.key) }),
    };
  };
}

function pem(value: unknown): string {
  return typeof value === 'string' || Buffer.isBuffer(value) ? value.toString() : '';
}
