"""A runtime without MLX: the real protocol, server, batch and step loop around a computer that only counts and waits.

It stands in for the real runtime where a test needs many processes, exact speeds or faults on demand. It loads a real
model folder's facts, so that both agree on what a client can see: error codes, counts, finish reasons.

The tokens are a pure function of the prompt ids and the position in the answer: `choices[blake2b(ids as u64 LE, then
the position as u64 LE) mod len(choices)]`, where `choices` are the ids of the folder's tokenizer that stand for plain
printable ASCII, in ascending order. Sampling parameters, seeds and the prefix cache do not change them; only a runtime
told to lie tells others.
"""
