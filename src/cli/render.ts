/**
 * `render`: manifests in, rules out. Touches no cluster and no kernel, and needs no privileges.
 *
 * @module
 */

import { hostname } from 'node:os';
import { Command, Option } from 'commander';
import { type Config, NFTABLES_LAYOUTS } from '../config/types.ts';
import type { ModeName } from '../modes/mode.ts';
import type { ApiObject, Family, NodeObject } from '../proxier/types.ts';
import type { ExitCode, Io } from './command.ts';
import { type ModeRenderer, RENDER_FORMATS, type RenderFormat, type RenderInput } from './render-mode.ts';

export interface RenderOptions {
  /** Undefined: the mode of the configuration. */
  readonly mode?: string;
  /** Of mode nftables. Undefined: the one of the configuration. */
  readonly layout?: string;
  /** Files, folders, `-`. */
  readonly filename: readonly string[];
  readonly config?: string;
  readonly node?: string;
  /** Addresses of the node's interfaces beside those in its Node object. */
  readonly nodeAddress?: readonly string[];
  readonly family: 'ipv4' | 'ipv6' | 'both';
  /** Undefined: the input of the mode's tool. */
  readonly format?: RenderFormat;
  readonly nfacct?: boolean;
}

const FAMILIES_OF: Readonly<Record<RenderOptions['family'], readonly Family[]>> = {
  ipv4: ['IPv4'],
  ipv6: ['IPv6'],
  both: ['IPv4', 'IPv6'],
};

/** Modes that can be rendered; each is loaded when it is asked for. */
const RENDERERS: Readonly<Partial<Record<ModeName, () => Promise<ModeRenderer>>>> = {
  iptables: async () => (await import('./render-iptables.ts')).IPTABLES_RENDERER,
  nftables: async () => (await import('./render-nftables.ts')).NFTABLES_RENDERER,
};

const EXAMPLES = `
The node is the one of --node, else hostnameOverride of the configuration, else the only Node in the manifests,
else this host. Its addresses, zone and pod CIDRs are taken from its Node in the manifests, if there is one.

Exit code: 0, or 1 if objects are left out because they are not valid (one line each on standard error), or 2 if
manifests or configuration cannot be read.

Examples:
  switchyard render -f services.yaml -f slices.yaml --family ipv4
  kubectl get nodes,services,endpointslices -A -o yaml | switchyard render -f - --node node-1
  switchyard render -f manifests/ --config config.conf --format json | jq '.families[0].tables.nat'
  switchyard render -f manifests/ --mode nftables --family ipv4 | nft --check -f -`;

/** A reason to give up, in one line or more. */
class RenderError extends Error {
  override readonly name = 'RenderError';
}

/**
 * Renders manifests.
 *
 * @param hostName - Name of this host, for when nothing else names the node.
 * @returns 0, 1 if objects are left out, 2 if something cannot be read; the reasons are on standard error.
 */
export async function runRender(options: RenderOptions, io: Io, hostName: string = hostname()): Promise<ExitCode> {
  try {
    const config = await readConfig(options, io);
    const { objects, isWhole } = await readObjects(options, io);
    const node = findNode(options, config, objects, hostName);
    const renderer = await openRenderer(config.mode, options.format);
    const { inputs, areWhole } = await renderInputs({ options, config, objects, node }, io);
    write(renderer, { mode: config.mode, node: node.name, format: options.format, inputs }, io);
    return isWhole && areWhole ? 0 : 1;
  } catch (error) {
    // A RangeError: something that a rule, or the language it is printed in, cannot say.
    if (!(error instanceof RenderError || error instanceof RangeError)) throw error;
    io.stderr.write(`${error.message}\n`);
    return 2;
  }
}

async function readConfig(options: RenderOptions, io: Io): Promise<Config> {
  const { loadConfig } = await import('../config/load.ts');
  const { ConfigError } = await import('../config/types.ts');
  const { readFile } = await import('node:fs/promises');
  try {
    const flags = options.config === undefined ? {} : { config: options.config };
    const overrides = { mode: options.mode, nftablesLayout: options.layout };
    const { config, warnings } = await loadConfig(flags, { readFile: (path) => readFile(path, 'utf8') }, overrides);
    for (const warning of warnings) io.stderr.write(`${warning}\n`);
    return config;
  } catch (cause) {
    if (cause instanceof ConfigError) throw new RenderError(cause.message, { cause });
    throw cause;
  }
}

/** @throws {RenderError} If the mode has no renderer, or not this format. */
async function openRenderer(mode: ModeName, format: RenderFormat | undefined): Promise<ModeRenderer> {
  const open = RENDERERS[mode];
  if (open === undefined) {
    const known = Object.keys(RENDERERS).join(', ');
    throw new RenderError(`Cannot render mode "${mode}": not built yet, must be one of ${known}`);
  }
  const renderer = await open();
  const formats: readonly RenderFormat[] = [...renderer.formats, 'json'];
  if (format !== undefined && !formats.includes(format)) {
    throw new RenderError(`Cannot render mode ${mode} as "${format}": must be one of ${formats.join(', ')}`);
  }
  return renderer;
}

/** Reads all manifests. What is not valid is told and left out; what cannot be read at all ends the command. */
async function readObjects(options: RenderOptions, io: Io) {
  const { readManifests } = await import('../watch/files.ts');
  const { ENDPOINT_SLICES, NODES, SERVICE_CIDRS, SERVICES } = await import('../watch/selectors.ts');
  const { objects, invalid, problems } = await readManifests({
    paths: options.filename,
    kinds: [SERVICES, ENDPOINT_SLICES, NODES, SERVICE_CIDRS],
    stdin: io.stdin,
  });
  if (problems.length > 0) {
    const lines = problems.map(({ file, document, why }) => {
      const place = document === 0 ? `"${file}"` : `document ${document} of "${file}"`;
      return `Cannot read ${place}: ${why}`;
    });
    throw new RenderError(lines.join('\n'));
  }
  for (const { kind, key, field, message } of invalid) io.stderr.write(`${kind} ${key}: ${field}: ${message}\n`);
  for (const object of objects) {
    if (object.kind === 'Service' && object.clusterIP === '' && object.type !== 'ExternalName') {
      io.stderr.write(`Service ${object.key}: spec.clusterIP: not set, no rules for it until the API server sets it\n`);
    }
  }
  return { objects, isWhole: invalid.length === 0 };
}

interface ThisNode {
  readonly name: string;
  /** Undefined if the manifests do not have it. */
  readonly object: NodeObject | undefined;
}

function findNode({ node }: RenderOptions, config: Config, objects: readonly ApiObject[], hostName: string): ThisNode {
  // An object that is in the manifests twice counts as the later one says.
  const nodes = new Map(objects.flatMap((o) => (o.kind === 'Node' ? [[o.name, o] as const] : [])));
  const only = nodes.size === 1 ? [...nodes.keys()][0] : undefined;
  const name = node?.trim().toLowerCase() || config.hostnameOverride || (only ?? hostName.trim().toLowerCase());
  return { name, object: nodes.get(name) };
}

interface Rendering {
  readonly options: RenderOptions;
  readonly config: Config;
  readonly objects: readonly ApiObject[];
  readonly node: ThisNode;
}

/** The plan of each family, from all objects. */
async function renderInputs({ options, config, objects, node }: Rendering, io: Io) {
  const { chooseNodeIPs, nodePortCidrs } = await import('../daemon/node.ts');
  const { isFeatureEnabled } = await import('../config/feature-gates.ts');
  const { cidrsOfFamily, parseIP } = await import('../proxier/addr.ts');
  const { localTraffic } = await import('../proxier/local-traffic.ts');
  const { Model } = await import('../proxier/model.ts');
  const { nodePortAddresses } = await import('../proxier/node-port-addresses.ts');
  const { quote } = await import('../watch/decode-error.ts');
  const nodeIPs = chooseNodeIPs(node.object, config.bindAddress);
  const nodePortTexts = nodePortCidrs(config.nodePortAddresses, nodeIPs);
  const nodeAddresses = [
    ...(node.object?.addresses ?? []).flatMap(({ address }) => parseIP(address)?.ip ?? []),
    ...(options.nodeAddress ?? []).map((text) => {
      const parsed = parseIP(text);
      if (parsed === undefined) throw new RenderError(`Cannot use --node-address "${text}": must be an IP address`);
      return parsed.ip;
    }),
  ];
  const podCIDRs = node.object?.podCIDRs ?? [];
  if (config.detectLocalMode === 'NodeCIDR' && podCIDRs.length === 0) {
    io.stderr.write(
      `Node ${node.name}: spec.podCIDRs: not in the manifests, so traffic of pods is not told from other\n`,
    );
  }
  const serviceCIDRs = objects.flatMap((o) => (o.kind === 'ServiceCIDR' ? o.cidrs : []));
  let areWhole = true;
  const inputs = FAMILIES_OF[options.family].map((family): RenderInput => {
    const model = new Model({
      family,
      nodeName: node.name,
      externalIPsAllowed: isFeatureEnabled(config.featureGates, 'AllowServiceExternalIPs'),
      onUnparsable: ({ service, field, text }) => {
        areWhole = false;
        io.stderr.write(`Service ${service}: ${field}: ${quote(text)} is not an address, left out\n`);
      },
    });
    model.setZone(node.object?.zone ?? '');
    for (const object of objects) {
      if (object.kind === 'Service') model.upsertService(object);
      else if (object.kind === 'EndpointSlice') model.upsertSlice(object);
    }
    model.takeChanges();
    return {
      family,
      config,
      services: [...model.services.values()],
      endpointCount: model.endpointCount,
      localTraffic: localTraffic({ ...config.detectLocal, detectLocalMode: config.detectLocalMode, podCIDRs }, family),
      nodePortAddresses: nodePortAddresses(nodePortTexts, family),
      nodeIP: nodeIPs.ips[family],
      nodeAddresses,
      serviceCIDRs: [...new Set(cidrsOfFamily(serviceCIDRs, family))],
      nfacct: options.nfacct ?? false,
    };
  });
  return { inputs, areWhole };
}

interface Rendered {
  readonly mode: ModeName;
  readonly node: string;
  readonly format: RenderFormat | undefined;
  readonly inputs: readonly RenderInput[];
}

function write(renderer: ModeRenderer, { mode, node, format = renderer.formats[0], inputs }: Rendered, io: Io): void {
  if (format === 'json') {
    const data = { mode, node, families: inputs.map((input) => renderer.data(input)) };
    io.stdout.write(`${JSON.stringify(data, null, 2)}\n`);
    return;
  }
  for (const input of inputs) io.stdout.write(renderer.text(input, format));
}

export function renderCommand(io: Io, exit: (code: ExitCode) => void): Command {
  const add = (path: string, paths: readonly string[] | undefined) => [...(paths ?? []), path];
  return new Command('render')
    .description("Print the rules for a node and the cluster's manifests; needs no privileges and no cluster")
    .addOption(
      new Option('-f, --filename <path>', 'Manifests: a file, a folder, or - for standard input; may be repeated')
        .argParser(add)
        .makeOptionMandatory(),
    )
    .addOption(new Option('--mode <mode>', "Mode (default: the configuration's)").choices(Object.keys(RENDERERS)))
    .addOption(
      new Option('--layout <layout>', "Layout of mode nftables (default: the configuration's)").choices([
        ...NFTABLES_LAYOUTS,
      ]),
    )
    .option('--config <file>', 'KubeProxyConfiguration of the node')
    .option('--node <name>', 'Name of the node')
    .addOption(
      new Option(
        '--node-address <ip>',
        'An address of the node beside those of its Node, for nodePortAddresses; may be repeated',
      ).argParser(add),
    )
    .addOption(new Option('--family <family>', 'IP family').choices(['ipv4', 'ipv6', 'both']).default('both'))
    .addOption(
      new Option(
        '--format <format>',
        'Input of iptables-restore (restore), output of iptables-save (saved), input of nft (nft), or json',
      ).choices([...RENDER_FORMATS]),
    )
    .option('--nfacct', 'Write the rules that count packets too; the kernel needs their nfacct objects to take them')
    .addHelpText('after', EXAMPLES)
    .action(async (options: RenderOptions) => exit(await runRender(options, io)));
}
