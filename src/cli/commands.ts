/**
 * The commands beside `run` and `version`, in the order of the help. Each is a file of this folder.
 *
 * @module
 */

import { cleanupCommand } from './cleanup.ts';
import type { CommandFactory } from './command.ts';
import { labCommand } from './lab.ts';
import { renderCommand } from './render.ts';

export const COMMANDS: readonly CommandFactory[] = [renderCommand, cleanupCommand, labCommand];
