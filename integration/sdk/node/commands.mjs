// What both programs share: they read one command a line from standard input, a JSON array of a name
// and its arguments, and answer each with one JSON line, {"result"} or {"error"}. So a test holds a
// process of a user, with the SDK and its caches in it, and tells it what to do when.
import readline from 'node:readline';

export async function serve(commands) {
  commands.ping = () => 'pong';
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [name, ...args] = JSON.parse(line);
    let answer;
    try {
      answer = { result: await commands[name](...args) };
    } catch (err) {
      answer = { error: `${name}: ${err?.code ?? ''} ${err?.message ?? err}` };
    }
    process.stdout.write(JSON.stringify(answer) + '\n');
  }
}

// All that a user needs: where the sidecar is, and the appid. The secret stays with the sidecar.
export const base = process.env.WXTOKEN_BASE; // http://127.0.0.1:7200/ or http://127.0.0.1:7200/proxy/shop/
export const appid = process.env.WXTOKEN_APPID;
export const secret = process.env.WXTOKEN_SECRET ?? 'the-sidecar-has-it';
