// The AI SDK with its providers: `node with_ai_sdk.mjs PROVIDER URL MODEL PROMPT` asks, streams, and runs one tool.
// Prints what it got as JSON. PROMPT is the question to which the model answers with a call of the tool.

import { readFile } from "node:fs/promises";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, streamText, tool } from "ai";
import { z } from "zod";

const [provider, url, name, prompt] = process.argv.slice(2);
const apiKey = "none";
const baseURL = `${url}/v1`;
const model = {
  "openai": () => createOpenAI({ baseURL, apiKey })(name), // responses
  "openai-chat": () => createOpenAI({ baseURL, apiKey }).chat(name),
  "openai-compatible": () => createOpenAICompatible({ name: "batuta", baseURL, apiKey, includeUsage: true })(name),
  "anthropic": () => createAnthropic({ baseURL, apiKey })(name),
}[provider]();

const ran = [];
const read_note = tool({
  description: "Read a note, a text file in the current directory",
  inputSchema: z.object({ name: z.string().describe("the name of the file") }),
  execute: async ({ name }) => {
    ran.push(name);
    return readFile(name, "utf8");
  },
});
const options = { model, maxRetries: 0, maxOutputTokens: 80 };

const asked = await generateText({ ...options, prompt: "Say hello." });
const parts = [];
for await (const part of streamText({ ...options, prompt: "Say hello." }).textStream) parts.push(part);
const told = streamText({ ...options, prompt, tools: { read_note }, stopWhen: isStepCount(3) });
const text = await told.text;
const usage = asked.usage.inputTokens + asked.usage.outputTokens;
console.log(JSON.stringify({ asked: asked.text, streamed: parts.join(""), parts: parts.length, ran, told: text, usage }));
