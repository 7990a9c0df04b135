"""A runtime without MLX: the real protocol, server, batch and step loop around a computer that only counts and waits.

It stands in for the real runtime where a test needs many processes, exact speeds or faults on demand. It loads a real
model folder's facts, so that both agree on what a client can see: error codes, counts, finish reasons.

The tokens are a pure function of the row, so that an answer which goes on elsewhere is known to be right or wrong:
`units[blake2b(key, then the position as u64 LE) mod len(units)]`, where `units` are the ids of the folder's tokenizer
that stand for plain printable ASCII, in ascending order, and `key` is the digest of the prompt ids (those of the answer
left out); above temperature 0 the seed follows it; with penalties, they follow and the digest of the answer's tokens so
far, sorted. Other parameters and the prefix cache change nothing; only a runtime told to lie tells other tokens.
"""
