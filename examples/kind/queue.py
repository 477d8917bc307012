"""Makes the queue `tasks` with its dead-letter queue in the stand-in for SQS, run in the stand-in's own pod:

kubectl -n alakai exec -i deploy/aws -- python - < examples/kind/queue.py
"""

import json

import boto3

sqs = boto3.client(
    "sqs",
    endpoint_url="http://localhost:5000",
    region_name="us-east-1",
    aws_access_key_id="test",
    aws_secret_access_key="test",  # noqa: S106 - the stand-in takes any
)
dead_letters = sqs.create_queue(QueueName="tasks-dlq")["QueueUrl"]
arn = sqs.get_queue_attributes(QueueUrl=dead_letters, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
queue = sqs.create_queue(QueueName="tasks")["QueueUrl"]
redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 5})
sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "30", "RedrivePolicy": redrive})
print(queue)  # noqa: T201
