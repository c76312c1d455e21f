mod work_queue;
