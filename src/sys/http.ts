/**
 * node:http without what nobody here asked for: an `import` of it reads every export, `WebSocket` among them, and that
 * getter loads the whole of undici, 11 MB resident (Node 24).
 *
 * @module
 */

export const http = process.getBuiltinModule('node:http');
