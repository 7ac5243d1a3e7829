// A Node client as a user writes one: @grpc/grpc-js and our .proto files, loaded at run time.
//
// It finds a daemon that serves one SimpleNet(10, 5, 2), from model_state.pth, through the
// environment: RELIGHT_GRPC_PORT, RELIGHT_MODEL, RELIGHT_TEST_DATA, RELIGHT_PROTO_DIR, and
// RELIGHT_NODE_MODULES, the folder that package.json was installed into.
import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import path from 'node:path';
import {after, before, test} from 'node:test';
import {promisify} from 'node:util';

const require = createRequire(path.join(process.env.RELIGHT_NODE_MODULES, 'package.json'));
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const MODEL = process.env.RELIGHT_MODEL;
const PROTO_DIR = process.env.RELIGHT_PROTO_DIR;
const TIMEOUT_MS = 60_000;
const CASE = JSON.parse(
    readFileSync(path.join(process.env.RELIGHT_TEST_DATA, 'io', 'simplenet.json'),
                 'utf8'))['model_state.pth'];
const [ROWS, COLUMNS] = CASE.input_shape;

function load(file) {
  return grpc.loadPackageDefinition(protoLoader.loadSync(
      path.join(PROTO_DIR, file),
      {includeDirs: [PROTO_DIR], keepCase: true, longs: Number, enums: String, defaults: true}));
}

const target = `127.0.0.1:${process.env.RELIGHT_GRPC_PORT}`;
const {inference} = load('inference/grpc_service.proto');
const client =
    new inference.GRPCInferenceService(target, grpc.credentials.createInsecure());
const {grpc: {health: {v1: health}}} = load('grpc/health/v1/health.proto');
const healthClient = new health.Health(target, grpc.credentials.createInsecure());

const options = () => ({deadline: Date.now() + TIMEOUT_MS});
const call = (stub, method, request) =>
    promisify(stub[method]).call(stub, request, new grpc.Metadata(), options());

let inputName;
before(async () => {
  const metadata = await call(client, 'ModelMetadata', {name: MODEL});
  inputName = metadata.inputs[0].name;
});
after(() => {
  client.close();
  healthClient.close();
});

function request(overrides = {}) {
  return {
    model_name: MODEL,
    id: 'seven',
    inputs: [{name: inputName, datatype: 'FP32', shape: CASE.input_shape}],
    raw_input_contents: [Buffer.from(new Float32Array(CASE.input).buffer)],
    ...overrides,
  };
}

function typedRequest() {
  const [input] = request().inputs;
  return request({
    inputs: [{...input, contents: {fp32_contents: CASE.input}}],
    raw_input_contents: [],
  });
}

function unpack(raw) {
  return Array.from({length: raw.length / 4}, (_, i) => raw.readFloatLE(4 * i));
}

function checkAnswer(got) {
  assert.equal(got.length, CASE.output.length);
  got.forEach((value, i) => assert.ok(
      Math.abs(value - CASE.output[i]) <= 1e-5, `output ${i} is ${value}, not ${CASE.output[i]}`));
}

async function refused(code, promise, ...words) {
  await assert.rejects(promise, (error) => {
    assert.equal(error.code, code, error.message);
    for (const word of words) assert.ok(error.details.includes(word), error.details);
    return true;
  });
}

test('raw in gives raw out, and names the weights', async () => {
  const response = await call(client, 'ModelInfer', request());
  checkAnswer(unpack(response.raw_output_contents[0]));
  assert.equal(response.id, 'seven');
  assert.deepEqual(response.outputs[0].shape, CASE.output_shape);
  assert.ok(response.parameters.generation.int64_param >= 1);
  assert.match(response.parameters.weights_digest.string_param, /^[0-9a-f]{32}$/);
});

test('typed in gives typed out', async () => {
  const response = await call(client, 'ModelInfer', typedRequest());
  assert.equal(response.raw_output_contents.length, 0);
  checkAnswer(response.outputs[0].contents.fp32_contents);
});

test('many requests at once are all answered', async () => {
  const calls = Array.from({length: 64}, () => call(client, 'ModelInfer', request()));
  for (const response of await Promise.all(calls)) {
    checkAnswer(unpack(response.raw_output_contents[0]));
  }
});

test('metadata describes the model', async () => {
  const metadata = await call(client, 'ModelMetadata', {name: MODEL});
  assert.equal(metadata.name, MODEL);
  assert.deepEqual(metadata.inputs[0].shape, [-1, COLUMNS]);
  assert.equal(metadata.inputs[0].datatype, 'FP32');
  assert.ok((await call(client, 'ServerReady', {})).ready);
});

test('health is serving', async () => {
  for (const service of ['', 'inference.GRPCInferenceService']) {
    assert.equal((await call(healthClient, 'Check', {service})).status, 'SERVING');
  }
  const watch = healthClient.Watch({service: ''}, options());
  watch.on('error', () => {});
  const first = await new Promise((resolve) => watch.once('data', resolve));
  assert.equal(first.status, 'SERVING');
  watch.cancel();
  await refused(grpc.status.NOT_FOUND, call(healthClient, 'Check', {service: 'no-such-service'}));
});

test('a stream answers, and outlives a bad request', async () => {
  const stream = client.ModelStreamInfer(options());
  const answers = [];
  stream.on('data', (answer) => answers.push(answer));
  const ended = new Promise((resolve, reject) => stream.on('end', resolve).on('error', reject));
  stream.write(request({id: '0'}));
  stream.write(request({id: '1', model_name: 'no-such-model'}));
  stream.write(request({id: '2'}));
  stream.end();
  await ended;
  assert.equal(answers.length, 3);
  const good = answers.filter((answer) => answer.error_message === '');
  assert.deepEqual(good.map((answer) => answer.infer_response.id).sort(), ['0', '2']);
  good.forEach((answer) => checkAnswer(unpack(answer.infer_response.raw_output_contents[0])));
});

test('bad requests are refused with a code and a reason', async () => {
  const {INVALID_ARGUMENT, NOT_FOUND, UNIMPLEMENTED} = grpc.status;
  const infer = (overrides) => call(client, 'ModelInfer', request(overrides));
  const [input] = request().inputs;
  await refused(NOT_FOUND, infer({model_name: 'no-such-model'}), 'no-such-model');
  await refused(INVALID_ARGUMENT, infer({inputs: [{...input, shape: [COLUMNS, ROWS]}]}));
  await refused(INVALID_ARGUMENT, infer({inputs: [{...input, datatype: 'INT64'}]}), 'INT64');
  await refused(INVALID_ARGUMENT, infer({inputs: [{...input, name: 'no-such-input'}]}),
                'no-such-input');
  await refused(UNIMPLEMENTED, call(client, 'SystemSharedMemoryStatus', {}));
});
