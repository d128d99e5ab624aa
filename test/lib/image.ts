/**
 * The image built from deploy/Dockerfile as it stands, by Debian's buildah. No registry is asked for the images it begins with: they
 * are made here, by debootstrap and of the Node and npm of this machine. What was built before and did not change is kept in
 * the user's cache: a first build takes about two minutes, the next one seconds.
 *
 * @module
 */

import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { sh } from './namespace.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const CACHE = join(process.env['XDG_CACHE_HOME'] || `${homedir()}/.cache`, 'switchyard');
/** Names by which deploy/Dockerfile begins. */
const DEBIAN = 'docker.io/library/debian:bookworm-slim';
const NODE = 'docker.io/library/node:24-bookworm-slim';
const IMAGE = 'localhost/switchyard:test';
const CERTIFICATES = '/etc/ssl/certs/ca-certificates.crt';
/** Layers of some builds, about 5 GB; then all are thrown away. */
const MAX_KEPT = 100;
const MINUTE_MS = 60_000;

/** What the slim images of Debian leave out. */
const NOT_SLIM = [
  'var/cache/apt',
  'var/lib/apt/lists',
  'usr/share/doc',
  'usr/share/man',
  'usr/share/locale',
  'var/log',
];

/** Go's name of this machine's processor, which images are told apart by. */
export function goArchitecture(): string {
  return process.arch === 'x64' ? 'amd64' : process.arch;
}

/** What the image says of how it is started. */
export interface ImageConfig {
  readonly Env: readonly string[];
  readonly Entrypoint: readonly string[];
  readonly Cmd: readonly string[];
  readonly WorkingDir: string;
}

export interface BuiltImage {
  /** The root file system, mounted. */
  readonly path: string;
  readonly config: ImageConfig;
  /** Of all files. */
  readonly sizeBytes: number;
  /** How long it took, and of that to make what it begins with. */
  readonly tookMs: { readonly all: number; readonly base: number };
  close(): void;
}

function buildah(...args: readonly string[]): string {
  const store = ['--root', `${CACHE}/containers`, '--runroot', '/run/switchyard-test-containers'];
  // The test runner loads itself into every Node that has its options.
  const { NODE_OPTIONS: _, ...env } = process.env;
  const r = spawnSync('buildah', [...store, ...args], { encoding: 'utf8', timeout: 10 * MINUTE_MS, env });
  if (r.error) throw new Error(`Cannot run buildah: ${r.error.message}; it is in Debian's package buildah`);
  if (r.status !== 0) {
    throw new Error(`Cannot run buildah ${args[0]}: status ${r.status}:\n${`${r.stdout}${r.stderr}`.slice(-4000)}`);
  }
  return r.stdout.trim();
}

function hasImage(name: string): boolean {
  return buildah('images', '--format', '{{.Name}}:{{.Tag}}').split('\n').includes(name);
}

/** Makes an image whose only layer is a directory. */
function commitDirectory(from: string, directory: string, name: string): void {
  const container = buildah('from', '--pull-never', from);
  try {
    buildah('add', '--quiet', container, directory, '/');
    if (from === 'scratch') {
      buildah('config', '--env', 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', container);
    }
    buildah('commit', '--quiet', '--rm', container, name);
  } catch (error) {
    buildah('rm', container);
    throw error;
  }
}

/** Makes the two images that the Dockerfile begins with, unless they are there. */
function makeBaseImages(): void {
  const tar = `${CACHE}/debian-bookworm-${goArchitecture()}.tar`;
  const work = mkdtempSync(`${CACHE}/base-`);
  try {
    if (!existsSync(tar)) {
      const debian = `${work}/debian`;
      sh('debootstrap', '--variant=minbase', 'bookworm', debian);
      for (const path of NOT_SLIM) {
        rmSync(`${debian}/${path}`, { recursive: true });
        mkdirSync(`${debian}/${path}`);
      }
      sh('tar', '-C', debian, '-cf', `${work}/debian.tar`, '.');
      renameSync(`${work}/debian.tar`, tar);
    }
    if (!hasImage(DEBIAN)) commitDirectory('scratch', tar, DEBIAN);
    if (!hasImage(NODE)) {
      const local = `${work}/node/usr/local`;
      mkdirSync(`${local}/bin`, { recursive: true });
      cpSync(realpathSync(process.execPath), `${local}/bin/node`);
      const npm = dirname(dirname(realpathSync(sh('sh', '-c', 'command -v npm').trim())));
      cpSync(npm, `${local}/lib/node_modules/npm`, { recursive: true });
      sh('ln', '-s', '../lib/node_modules/npm/bin/npm-cli.js', `${local}/bin/npm`);
      commitDirectory(DEBIAN, `${work}/node`, NODE);
    }
  } finally {
    rmSync(work, { recursive: true });
  }
}

/** How RUN gets out: by this machine's network, its certificates, and the packages npm has fetched before. */
function waysOut(): readonly string[] {
  const npmrc = `${CACHE}/npmrc`;
  const kept = '/tmp/npm';
  writeFileSync(
    npmrc,
    [`cache=${kept}`, ...(existsSync(CERTIFICATES) ? [`cafile=${CERTIFICATES}`] : []), ''].join('\n'),
  );
  const cache = sh('npm', 'config', 'get', 'cache').trim();
  mkdirSync(cache, { recursive: true });
  const certificates = existsSync(CERTIFICATES) ? ['--volume', `${CERTIFICATES}:${CERTIFICATES}:ro`] : [];
  return [
    ...['--isolation', 'chroot', '--network', 'host', ...certificates],
    // npm's global configuration, which belongs to nobody's home.
    ...['--volume', `${npmrc}:/usr/local/etc/npmrc:ro`, '--volume', `${cache}:${kept}`],
  ];
}

/**
 * Builds the image of this working tree and mounts it.
 *
 * @throws {Error} With the end of what was said, if a step fails.
 */
export function buildImage(): BuiltImage {
  mkdirSync(CACHE, { recursive: true });
  const startMs = performance.now();
  if (buildah('images', '--all', '--quiet').split('\n').length > MAX_KEPT) {
    buildah('rm', '--all');
    buildah('rmi', '--all', '--force');
  }
  makeBaseImages();
  const baseMs = performance.now() - startMs;
  const file = `${root}/deploy/Dockerfile`;
  const from = ['--pull-never', '--platform', `linux/${goArchitecture()}`, '--ignorefile', `${file}.dockerignore`];
  // Forced, because a stage with no step of its own would leave its container mounted.
  buildah('build', '--layers', '--force-rm', ...from, ...waysOut(), '--tag', IMAGE, '--file', file, root);
  const allMs = performance.now() - startMs;
  const container = buildah('from', '--pull-never', IMAGE);
  try {
    const inspected: { OCIv1: { config: ImageConfig } } = JSON.parse(buildah('inspect', '--type', 'image', IMAGE));
    const path = buildah('mount', container);
    return {
      path,
      config: inspected.OCIv1.config,
      sizeBytes: Number(sh('du', '-sb', path).split('\t')[0]),
      tookMs: { all: allMs, base: baseMs },
      close: () => {
        buildah('umount', container);
        buildah('rm', container);
      },
    };
  } catch (error) {
    buildah('rm', container);
    throw error;
  }
}
