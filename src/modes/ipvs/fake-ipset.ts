/**
 * Sets in memory, for commands as this mode gives them.
 *
 * @module
 */

import type { FakeProgram } from '../../sys/fake-exec.ts';
import { IpsetRefusedError, type Ipsets, type ListedSets } from './ipset.ts';

/** Refused by the program, not by the kernel. */
const IS_PARSING = /^(?:The set with the given name does not exist|Syntax error|Unknown argument)/;

interface Held {
  readonly definition: string;
  readonly elements: Set<string>;
}

export class FakeIpsets implements Ipsets {
  readonly #sets = new Map<string, Held>();
  /** Sets that rules refer to: they cannot be destroyed. */
  readonly used = new Set<string>();
  /** The next runs fail so often, before they do anything. */
  failures = 0;
  /** Commands given, in order. */
  readonly commands: string[] = [];
  /** How often all sets were listed. */
  listings = 0;
  /** How many elements a set takes. */
  capacity = 65_536;

  async list(): Promise<ListedSets> {
    this.listings++;
    return new Map(Array.from(this.#sets, ([name, { elements }]) => [name, new Set(elements)]));
  }

  /** What `ipset save` prints, without the numbers that depend on the kernel. */
  save(): string {
    return Array.from(this.#sets, ([name, { definition, elements }]) =>
      [`create ${name} ${definition}`, ...Array.from(elements, (element) => `add ${name} ${element}`)].join('\n'),
    ).join('\n');
  }

  async run(commands: readonly string[]): Promise<void> {
    if (this.failures > 0) {
      this.failures--;
      throw new IpsetRefusedError(undefined, 'Kernel error received: Operation not permitted');
    }
    for (const [i, command] of commands.entries()) {
      this.commands.push(command);
      const reason = this.#one(command);
      if (reason === undefined) continue;
      if (IS_PARSING.test(reason)) this.#forgetGathered(commands.slice(0, i));
      throw new IpsetRefusedError(i, `ipset v7.17: Error in line ${i + 1}: ${reason}`);
    }
  }

  /** Commands alike for one set are given to the kernel together: a line that cannot be read ends the program before it does. */
  #forgetGathered(done: readonly string[]): void {
    const alike = (command: string | undefined) => command?.split(' ', 2).join(' ');
    for (const command of done.toReversed()) {
      if (!command.startsWith('add ') || alike(command) !== alike(done.at(-1))) return;
      const [, name = '', element = ''] = command.split(' ');
      this.#sets.get(name)?.elements.delete(element);
    }
  }

  #one(command: string): string | undefined {
    const [verb, name = '', ...rest] = command.split(' ');
    const held = this.#sets.get(name);
    const text = rest.join(' ');
    if (verb === 'create') {
      if (held === undefined) this.#sets.set(name, { definition: text, elements: new Set() });
      else if (held.definition !== text) return 'Set cannot be created: set with the same name already exists';
      return undefined;
    }
    if (held === undefined) return 'The set with the given name does not exist';
    if (verb === 'add') {
      if (!held.elements.has(text) && held.elements.size >= this.capacity)
        return 'Hash is full, cannot add more elements';
      if (!/^[0-9a-f.:,/a-z]+$/.test(text)) return `Syntax error: cannot parse ${text}`;
      held.elements.add(text);
    } else if (verb === 'del') held.elements.delete(text);
    else if (verb === 'destroy') {
      if (this.used.has(name)) return 'Set cannot be destroyed: it is in use by a kernel component';
      this.#sets.delete(name);
    } else return `Unknown argument: "${verb}"`;
    return undefined;
  }
}

/** The program over sets in memory: what `FakeExec` starts as `ipset`. */
export function fakeIpset(sets: FakeIpsets): FakeProgram {
  return async ({ argv, stdin }) => {
    if (argv.includes('--version')) return { stdout: 'ipset v7.17, protocol version: 7\n' };
    if (argv.includes('save')) return { stdout: `${sets.save()}\n` };
    try {
      await sets.run(stdin.split('\n').filter((line) => line !== ''));
      return {};
    } catch (error) {
      if (error instanceof IpsetRefusedError) return { status: 1, stderr: `${error.reason}\n` };
      throw error;
    }
  };
}
