"""Words about mail: values and pure functions that any mail engineer knows. No I/O, no settings.

Read in this order:

1. `address`: one address and one mailbox, parsed strictly, printed safely.
2. `envelope`: who gives the message back and who receives it, and the split into batches.
3. `compose`: from a caller's draft to the octets that follow DATA; the story of a message.
   `draft` is what goes in and comes out, `headers` encodes and folds header lines,
   `attachment` names and types the files, `html_text` derives the readable text, `mime` writes
   the tree of parts, `message_id` names the message.
4. `adopt`: the same result from a message that the caller built; `lines` says what a line is.

What is refused here is refused with a stable code and a sentence; neither repeats the input.
"""
