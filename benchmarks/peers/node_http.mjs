// Node's own http: one write an item, waiting for `drain` when told to.
import { once } from "node:events";
import { createServer } from "node:http";
import { setImmediate, setTimeout } from "node:timers/promises";

const tick = (seq) => ({ seq, symbol: "ACME", price: 101.25, ts: 1712345678.123 });

const streams = {
  async *"/hot"() {
    for (let seq = 0; ; seq++) yield tick(seq);
  },
  async *"/turn"() {
    for (let seq = 0; ; seq++) {
      yield tick(seq);
      await setImmediate();
    }
  },
  async *"/short"(query) {
    const n = Number(query.get("n"));
    for (let seq = 0; seq < n; seq++) yield tick(seq);
  },
  async *"/slow"(query) {
    const pause = Number(query.get("pause")) * 1000;
    for (let seq = 0; ; seq++) {
      yield tick(seq);
      await setTimeout(pause);
    }
  },
  async *"/idle"() {
    yield tick(0);
    await new Promise(() => {});
  },
};

const server = createServer(async (request, response) => {
  const url = new URL(request.url, "http://localhost");
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
  const items = streams[url.pathname](url.searchParams);
  response.on("close", () => items.return());
  for await (const item of items) {
    if (!response.write(`data: ${JSON.stringify(item)}\n\n`)) await once(response, "drain");
  }
  response.end();
});

server.listen({ host: "127.0.0.1", port: 0, backlog: 1024 }, () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});
