"""What is typed: one module per subject, thin; nothing imports them but ``cli``.

What a command computes lives in the wing of its subject.
"""
