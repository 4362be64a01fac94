// Does with Resend's SDK for Node what the test asks for, line by line; see `sdk.py`.
//
// Everything here is what an application would write. The base URL comes from RESEND_BASE_URL.

const readline = require("node:readline");
const { Resend } = require("resend");

const NAMES = { reply_to: "replyTo", scheduled_at: "scheduledAt", topic_id: "topicId" };
const FILE_NAMES = { content_type: "contentType", content_id: "contentId" };

const renamed = (given, names) =>
  Object.fromEntries(Object.entries(given).map(([name, value]) => [names[name] ?? name, value]));

// Files are given as the SDK's documentation does: as a Buffer.
const email = (given) => ({
  ...renamed(given, NAMES),
  attachments: given.attachments?.map((file) => ({
    ...renamed(file, FILE_NAMES),
    content: Buffer.from(file.content, "base64"),
  })),
});

async function call({ call, key, given, options = {} }) {
  const resend = new Resend(key);
  const sent = { idempotencyKey: options.idempotency_key, batchValidation: options.batch_validation };
  switch (call) {
    case "send":
      return resend.emails.send(email(given), sent);
    case "batch":
      return resend.batch.send(given.map(email), sent);
    case "get":
      return resend.emails.get(given);
    case "list":
      return resend.emails.list(given);
    case "update":
      return resend.emails.update(renamed(given, NAMES));
    case "cancel":
      return resend.emails.cancel(given);
    case "put": // no method of the SDK does this: its own request does
      return resend.put("/emails", {});
    default:
      throw new Error(call);
  }
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { data, error, headers } = await call(JSON.parse(line));
    const told = error && {
      name: error.name,
      status: error.statusCode,
      message: error.message,
      retry_after: headers?.["retry-after"] ?? null,
    };
    console.log(JSON.stringify({ data, error: told }));
  }
})();
