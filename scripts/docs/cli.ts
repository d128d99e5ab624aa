/**
 * `docs/cli.md`: commands and their help from the program itself, flags and fields from the tables of `src/config`.
 *
 * @module
 */

import { Readable } from 'node:stream';
import type { Command } from 'commander';
import type { Io } from '../../src/cli/command.ts';
import { COMMANDS } from '../../src/cli/commands.ts';
import { createProgram } from '../../src/cli/program.ts';
import { flagTerm } from '../../src/cli/run-flags.ts';
import { API_VERSION, DEFAULT_FILE, FILE_SHAPE, KIND } from '../../src/config/decode.ts';
import { formatDurationMs } from '../../src/config/durations.ts';
import { FEATURE_GATES } from '../../src/config/feature-gates.ts';
import type { FieldShape } from '../../src/config/fields.ts';
import type { Flag } from '../../src/config/flag-kinds.ts';
import { FLAGS, flagOfField, isFlagName } from '../../src/config/flags.ts';
import { code, generatedFrom, table } from './markdown.ts';

/** The whole page. */
export function cliPage(): string {
  let written = '';
  const io: Io = {
    stdin: Readable.from([]),
    stdout: {
      write: (text: string) => {
        written += text;
        return true;
      },
    },
    stderr: { write: () => true },
    colours: { stdout: false, stderr: false },
    signal: new AbortController().signal,
  };
  const notRun = () => Promise.reject(new TypeError('Cannot run the daemon: this program only shows its help'));
  const program = createProgram(io, () => {}, {
    run: { builtModes: [], runDaemon: notRun, clock: { now: () => 0, sleep: notRun } },
    commands: COMMANDS,
  });
  const helpOf = (command: Command) => {
    written = '';
    command.outputHelp();
    return written;
  };
  const commands = leaves(program);
  return `${[
    '# Command line and configuration',
    generatedFrom('src/cli/commands.ts', 'src/config/flags.ts', 'src/config/decode.ts'),
    '## Commands',
    table(
      ['Command', 'Does'],
      commands.map((c) => [`[\`${nameOf(c)}\`](#${nameOf(c).replaceAll(' ', '-')})`, c.description()]),
    ),
    '`switchyard --version` prints the version, `--help` after any command its help.',
    ...commands.flatMap((c) => (c.name() === 'run' ? runSection(c, helpOf(c)) : section(c, helpOf(c)))),
    ...fileSection(),
  ].join('\n\n')}\n`;
}

/** Commands that do something, in the order of the help. */
function leaves(command: Command): readonly Command[] {
  return command.commands.flatMap((c) => (c.commands.length === 0 ? [c] : leaves(c)));
}

/** `switchyard lab demo` */
function nameOf(command: Command): string {
  return command.parent === null ? command.name() : `${nameOf(command.parent)} ${command.name()}`;
}

const block = (text: string) => `\`\`\`text\n${text.trim()}\n\`\`\``;

const section = (command: Command, help: string) => [`## ${nameOf(command)}`, block(help)];

/** A table for each group of flags, then what the help says after them. */
function runSection(command: Command, help: string): readonly string[] {
  const groups = new Map<string, (readonly string[])[]>();
  for (const option of command.options) {
    const name = option.long?.slice(2) ?? '';
    if (!isFlagName(name)) continue;
    const flag: Flag<unknown> = FLAGS[name];
    const row = [
      code(flagTerm(option) ?? option.flags),
      code(flag.default),
      flag.help || 'No effect',
      code(flag.field),
    ];
    groups.set(flag.group, [...(groups.get(flag.group) ?? []), row]);
  }
  const after = help.slice(command.helpInformation().length);
  return [
    `## ${nameOf(command)}`,
    `${command.description()}. Durations are Go's: \`30s\`, \`1h30m\`. A flag without a value is \`true\` where it is on or off.`,
    ...[...groups].flatMap(([group, rows]) => [
      `### ${group.replace(/:$/, '')}`,
      table(['Flag', 'Default', 'Meaning', 'Field of the file'], rows),
    ]),
    '### Examples and exit codes',
    block(after),
  ];
}

function fileSection(): readonly string[] {
  return [
    `## ${KIND}`,
    `YAML or JSON, \`apiVersion: ${API_VERSION}\`. A field that is left out has its default. The file replaces all flags but those that \`--config\` names above; ` +
      'the flag of a field says the same where there is no file, and what the field means.',
    table(['Field', 'Type', 'Default', 'Flag'], fieldRows('', FILE_SHAPE, DEFAULT_FILE)),
    '### Feature gates',
    table(
      ['Gate', 'Stage', 'Default', 'About'],
      FEATURE_GATES.map((g) => [code(g.name), g.stage, `${g.default}${g.locked ? ', locked' : ''}`, g.about]),
    ),
  ];
}

/** A row for each field that holds a value, whole lists and maps included. */
function fieldRows(path: string, shape: FieldShape, value: unknown): readonly (readonly string[])[] {
  const name = (flagOfField(path) ?? '').slice(2);
  const flag = code(name && `--${name}`);
  switch (shape.kind) {
    case 'value':
      // An empty text means what the flag says when it is not given.
      return [[code(path), shape.type, code(defaultText(shape.type, value) || flagDefault(name)), flag]];
    case 'map':
      return [[code(path), `map of ${shape.item.kind === 'value' ? shape.item.type : shape.item.kind}`, '`{}`', flag]];
    case 'list': {
      const item = shape.item.kind === 'value' ? shape.item.type : shape.item.kind;
      const below = shape.item.kind === 'object' ? fieldRows(`${path}[]`, shape.item, undefined) : [];
      return [[code(path), `list of ${item}`, '`[]`', flag], ...below];
    }
    case 'object': {
      const held = new Map(typeof value === 'object' && value !== null ? Object.entries(value) : []);
      return Object.entries(shape.fields).flatMap(([name, field]) =>
        fieldRows(path === '' ? name : `${path}.${name}`, field, held.get(name)),
      );
    }
  }
}

const flagDefault = (name: string) => (isFlagName(name) ? FLAGS[name].default : '');

/** As the file would say it; '' for an empty text, and for what only exists in an item of a list. */
function defaultText(type: string, value: unknown): string {
  return type === 'duration' ? formatDurationMs(Number(value)) : String(value ?? '');
}
