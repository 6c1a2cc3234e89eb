// A client of @grpc/grpc-js that knows a server by reflection alone. `protos` is reflection's own description, which
// every such client has beforehand.
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const options = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true };
const load = (files) => {
  const varint = (size) => (size < 128 ? [size] : [(size & 127) | 128, ...varint(size >> 7)]);
  const fields = files.flatMap((file) => [Buffer.from([0x0a, ...varint(file.length)]), file]);
  return loader.loadFileDescriptorSetFromBuffer(Buffer.concat(fields), options);
};

// The answers of reflection to these requests, all over one call.
const ask = (target, credentials, protos, requests) =>
  new Promise((resolve, reject) => {
    const service = load(protos)["grpc.reflection.v1alpha.ServerReflection"];
    const client = new (grpc.makeGenericClientConstructor(service))(target, credentials);
    const call = client.ServerReflectionInfo();
    const answers = [];
    call.on("data", (answer) => answers.push(answer));
    call.on("error", reject);
    call.on("end", () => {
      client.close();
      resolve(answers);
    });
    requests.forEach((request) => call.write(request));
    call.end();
  });

// The clients of all services of a server, by their names.
const discover = async (target, credentials, protos, channel) => {
  const [{ list_services_response: listed }] = await ask(target, credentials, protos, [{ list_services: "" }]);
  const symbols = listed.service.map(({ name }) => ({ file_containing_symbol: name }));
  const answers = await ask(target, credentials, protos, symbols);
  const files = new Map();
  for (const { file_descriptor_response: found } of answers) {
    for (const file of found.file_descriptor_proto) files.set(file.toString("hex"), file);
  }
  const services = load([...files.values()]);
  const clients = {};
  for (const { name } of listed.service) {
    clients[name] = new (grpc.makeGenericClientConstructor(services[name]))(target, credentials, channel);
  }
  return clients;
};

// How a call went: what came, its metadata, and its status.
const watch = (call) =>
  new Promise((resolve) => {
    const seen = { items: [], initial: null };
    call.on("metadata", (metadata) => (seen.initial = metadata.toJSON()));
    call.on("data", (item) => seen.items.push(item));
    call.on("error", () => {});
    call.on("status", ({ code, details, metadata }) => resolve({ ...seen, code, details, trailing: metadata }));
  });

// A call with one answer, as a promise of it.
const unary = (client, method, request, metadata = new grpc.Metadata(), options = {}) =>
  new Promise((resolve, reject) => {
    client[method](request, metadata, options, (error, answer) => (error ? reject(error) : resolve(answer)));
  });

const next = (call) => new Promise((resolve) => call.once("data", resolve));
