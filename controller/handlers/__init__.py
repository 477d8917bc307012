"""What Kopf calls: thin handlers that note what was seen and wake whoever looks after it. Only this package and
``kopf_operator`` know Kopf.
"""
