"""The contract as documents for agents in other languages: JSON Schema, the error table, AsyncAPI.

Rule: not needed on a device, and imported by no other module of the product.
"""
