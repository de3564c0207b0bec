"""The person's room: keys, the trust root, review, roll-out, and the audit trail of all of it."""
