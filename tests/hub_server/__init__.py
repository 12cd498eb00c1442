"""A small server that speaks the Hugging Face Hub's protocol on loopback, for the real client.

    store.py         objects by their hash, and what the client's Xet store holds
    state.py         users, repositories, commits, branches and tags
    web.py           requests, answers, refusals, the routing table, the request log
    faults.py        what can be made to go wrong
    accounts.py      who is asking, and what they may do
    repositories.py  create, describe, list, refs and tags
    uploads.py       preupload, LFS, Xet tokens, commits
    downloads.py     resolve, the redirect to the "CDN", byte ranges
    server.py        all of it behind a port

It follows what huggingface_hub 2.x and hf_xet 1.x send and expect, for model repositories.
"""
