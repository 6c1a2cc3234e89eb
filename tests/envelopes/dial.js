// A WebSocket as tests want it: its messages one after the other, and the close that ends them.
// It is all that a client has by itself: the same in a browser, in Node, and with the package `ws`.
function dial(WebSocket, url, ...more) {
  const socket = new WebSocket(url, ...more);
  const arrived = [];
  const waiting = [];
  const arrive = (message) => (waiting.length ? waiting.shift()(message) : arrived.push(message));
  const texts = new TextDecoder();

  // A binary message: 0x01, the length of its envelope, the envelope, and the payload behind it.
  const unpack = (buffer) => {
    const end = 3 + new DataView(buffer).getUint16(1);
    const envelope = JSON.parse(texts.decode(buffer.slice(3, end)));
    return { ...envelope, binary: true, payload: [...new Uint8Array(buffer, end)] };
  };
  const pack = (envelope, payload) => {
    const head = new TextEncoder().encode(JSON.stringify(envelope));
    return new Uint8Array([1, head.length >> 8, head.length & 255, ...head, ...payload]);
  };

  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => arrive(typeof data === "string" ? JSON.parse(data) : unpack(data));
  const opened = new Promise((resolve) => (socket.onopen = () => resolve(true)));
  const failed = new Promise((resolve) => (socket.onerror = () => resolve(false)));
  const closed = new Promise((resolve) => {
    socket.onclose = ({ code, wasClean }) => {
      resolve({ code, wasClean });
      arrive(null);
    };
  });

  const receive = async () => (arrived.length ? arrived.shift() : new Promise((resolve) => waiting.push(resolve)));
  return {
    socket,
    opened: Promise.race([opened, failed]),
    closed,
    send: (...messages) => messages.forEach((message) => socket.send(JSON.stringify(message))),
    sendBytes: (envelope, payload) => socket.send(pack(envelope, payload)),
    receive,
    // All messages up to the first of one of these types, or the end, which is null.
    until: async (...types) => {
      const messages = [await receive()];
      while (messages.at(-1) && !types.includes(messages.at(-1).type)) messages.push(await receive());
      return messages;
    },
  };
}
